#include "job/job.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/staged.h"
#include "job/handshake.h"
#include "job/own_gpu.h"
#include "parallel/alarm.h"
#include "parallel/gloo_communicator.h"
#include "parallel/nccl_communicator.h"
#include "tensor/gpu_identity.h"

namespace mixtune {

namespace {

// How much later a communicator gives up: the coordinator knows better why a rank does not answer, so it speaks first.
constexpr std::chrono::seconds kLater{5};
// When a rank that waits for another says so: a launcher starts its ranks together.
constexpr std::chrono::seconds kPatience{10};

OwnGpu own_gpu(Device device) {
  const GpuIdentity identity = gpu_identity(device.index);
  return {.id = identity.uuid, .place = fmt::format("GPU {} of {}", identity.bus, host_name())};
}

}  // namespace

Job::Job(JobOptions options) : options_(std::move(options)) {
  const Launch& launch = options_.launch;
  check_token(options_.token);
  if (launch.rank == 0 && !launch.supervised) {
    coordinator_.emplace(CoordinatorOptions{.host = launch.host,
                                            .port = launch.port,
                                            .size = launch.size,
                                            .token = options_.token,
                                            .timeout = options_.timeout,
                                            .patience = kPatience});
    if (options_.token.empty())
      log_warning("MIXTUNE_TOKEN is not set: whoever reaches {}:{} can take part in this job, and end it", launch.host,
                  launch.port);
  }
  client_ = std::make_unique<CoordinatorClient>(
      CoordinatorClientOptions{.host = launch.host,
                               .port = launch.port,
                               .rank = launch.rank,
                               .size = launch.size,
                               .token = options_.token,
                               .timeout = options_.timeout,
                               .patience = kPatience,
                               .on_failure = [this](const Failure& failure) {
                                 if (coordinator_) coordinator_->wait();  // until the others know, too
                                 options_.on_failure(failure);
                               }});
}

Job::~Job() {
  client_.reset();
  if (coordinator_ && std::uncaught_exceptions() == 0) coordinator_->wait();
}

void Job::compare(const Entries& entries) {
  const auto key = [](const std::string& name) {
    return "compare/" + name;
  };
  for (const auto& [name, value] : entries) {
    if (options_.launch.rank == 0)
      client_->set(key(name), value);
    else if (client_->get(0, key(name)) != value)
      throw UserError("", fmt::format("the {} of rank {} is not that of rank 0", name, options_.launch.rank),
                      "start all ranks with the same program, settings and files");
  }
}

std::unique_ptr<Communicator> Job::connect_all(Device device) {
  const Launch& launch = options_.launch;
  if (device.type == DeviceType::kCuda)
    return with_progress(make_nccl_communicator(*client_, launch.rank, launch.size, device), *client_,
                         Progress::kGoesOn);
  const auto goes_on = [this] {
    return client_->waits_for_work();
  };
  return with_progress(make_gloo_communicator(*client_, {.rank = launch.rank,
                                                         .size = launch.size,
                                                         .host = client_->own_address(),
                                                         .timeout = options_.timeout + kLater,
                                                         .goes_on = goes_on}),
                       *client_, Progress::kDone);
}

Ranks Job::connect(Device device, const RankGrid& grid) {
  Ranks ranks = device.type == DeviceType::kCuda ? connect_gpus(device, grid) : make_ranks(connect_all(device), grid);
  ranks.device = device;
  ranks.progress = client_.get();
  ranks.compare = [this](const Entries& entries) {
    compare(entries);
  };
  return ranks;
}

Ranks Job::connect_gpus(Device device, const RankGrid& grid) {
  check_own_gpu(*client_, options_.launch.rank, options_.launch.size, own_gpu(device));
  const auto patience = options_.timeout + kLater;
  const auto give_up = [this](const std::string& message) {
    options_.on_failure(fail(message, 1));
  };
  const auto give_up_idle = [this, give_up](const std::string& message) {
    if (!client_->waits_for_work()) give_up(message);
  };
  Alarm alarm([&] { give_up("NCCL does not connect the ranks; NCCL_DEBUG=INFO in the environment says more"); });
  alarm.set(patience);
  const size_t before = gpu_info(device.index).free_memory;
  Ranks ranks = make_ranks(connect_all(device), grid);
  alarm.clear();
  ranks.gpu_bytes = before - std::min(before, gpu_info(device.index).free_memory);
  ranks.patience = std::chrono::duration<double>(patience).count();
  ranks.give_up = give_up_idle;
  if (grid.world > 1)
    log_info("NCCL connects the ranks, and takes {} of this GPU's memory", format_bytes(ranks.gpu_bytes));
  return ranks;
}

Failure Job::fail(const std::string& message, int exit_code) {
  const Failure failure = client_->fail(message, exit_code);
  if (coordinator_) coordinator_->wait();
  return failure;
}

}  // namespace mixtune
