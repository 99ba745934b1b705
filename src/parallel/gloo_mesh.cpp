#include "parallel/gloo_mesh.h"

#include <fmt/format.h>
#include <gloo/common/error.h>
#include <gloo/rendezvous/store.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/file.h"
#include "parallel/self_messages.h"

namespace mixtune {

namespace {

constexpr const char* kConnecting = "connecting the ranks";
constexpr const char* kMend = "see what that rank said last; if it is only slow, allow more time";

// Slots for a receive that no rank ever answers, and for last words.
constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max(), kLastWords = kNever - 1;

// Gloo's own timeout, at which it would close all connections: the alarm ends waits long before.
constexpr auto kNoTimeout = std::chrono::hours(24 * 365);

// Gloo's message, without the place in its source.
std::string reason(const std::exception& error) {
  const std::string text = error.what();
  const size_t place = text.find("] ");
  return printable(place == std::string::npos ? text : text.substr(place + 2), 200);
}

// The store as Gloo wants it. It remembers whom it asked for last: where connecting fails, it was that rank.
class GlooStore final : public gloo::rendezvous::Store {
 public:
  GlooStore(mixtune::Store& store, const GlooGroup& group)
      : store_(store), prefix_(group.prefix), ranks_(group.ranks) {}

  void set(const std::string& key, const std::vector<char>& value) override {
    store_.set(prefix_ + key, {value.begin(), value.end()});
  }
  // Keys are "3" and "rank_3", with a place in the group.
  std::vector<char> get(const std::string& key) override {
    last_ = std::stoi(key.substr(key.find_first_of("0123456789")));
    const std::string value = store_.get(ranks_.at(static_cast<size_t>(last_)), prefix_ + key);
    return {value.begin(), value.end()};
  }
  void wait(const std::vector<std::string>&) override {}  // get() waits

  int last() const { return last_; }

 private:
  mixtune::Store& store_;
  std::string prefix_;
  std::vector<int> ranks_;
  int last_ = 0;
};

// A rank that leaves after its last message looks like one that is lost; messages that came before count.
template <class Wait>
bool wait_or_take(Wait wait) {
  try {
    return wait();
  } catch (const gloo::IoException&) {
    return wait();
  }
}

size_t address(const void* data) {
  return reinterpret_cast<size_t>(data);
}

// Why this process cannot listen at `host`; empty if it can. Gloo would go on with a name that has no address.
std::string listening_problem(const std::string& host) {
  const addrinfo hints{.ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), nullptr, &hints, &found); code != 0) return gai_strerror(code);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int code = 0;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    const Fd fd(socket(a->ai_family, a->ai_socktype, a->ai_protocol));
    if (bind(fd.get(), a->ai_addr, a->ai_addrlen) == 0) return "";
    code = errno;
  }
  return std::strerror(code);
}

}  // namespace

std::shared_ptr<gloo::transport::Device> make_gloo_device(const std::string& host) {
  gloo::transport::tcp::attr attr(host.empty() ? "127.0.0.1" : host.c_str());
  const auto cannot_listen = [&attr](const std::string& why) {
    return Error(kConnecting, fmt::format("cannot listen at {}: {}", printable(attr.hostname), why),
                 "give a name or address of this machine that the other ranks can reach");
  };
  if (const std::string why = listening_problem(attr.hostname); !why.empty()) throw cannot_listen(why);
  try {
    return gloo::transport::tcp::CreateDevice(attr);
  } catch (const std::exception& error) {
    throw cannot_listen(reason(error));
  }
}

GlooMesh::GlooMesh(Store& store, std::shared_ptr<gloo::transport::Device> device, GlooGroup group,
                   GlooPatience patience)
    : group_(std::move(group)),
      timeout_(patience.timeout),
      device_(std::move(device)),
      peers_(group_.ranks.size()),
      alarm_([this] { end_waits(); }, std::move(patience.goes_on)) {
  MT_CHECK(group_.rank >= 0 && group_.rank < static_cast<int>(group_.ranks.size()) && timeout_.count() > 0);
  connect(store);
  greet();
}

void GlooMesh::connect(Store& store) {
  GlooStore gloo_store(store, group_);
  context_ = std::make_unique<gloo::rendezvous::Context>(group_.rank, static_cast<int>(group_.ranks.size()));
  // Gloo waits five times as long for a connection. 0 would mean without end.
  context_->setTimeout(std::max(timeout_ / 5, std::chrono::milliseconds(1)));
  const auto failed = [&](const std::string& why) {
    return Error(kConnecting,
                 fmt::format("rank {} of {} was not reached: {}", group_.ranks[gloo_store.last()], group_.world, why),
                 "see whether it runs and what it says");
  };
  try {
    context_->connectFullMesh(gloo_store, device_);
    for (int peer = 0; peer < static_cast<int>(peers_.size()); ++peer)
      if (peer != group_.rank) watch(peer);
  } catch (const Error& error) {
    throw failed(error.what());
  } catch (const std::exception& error) {
    throw failed(reason(error));
  }
}

// Messages lie in one buffer for each peer that spans all memory: offsets are addresses. A receive on it that is never
// answered tells that the peer is lost: Gloo tells that only to sends and receives that have not begun.
void GlooMesh::watch(int peer) {
  Peer& p = peers_[peer];
  p.memory = context_->createUnboundBuffer(nullptr, std::numeric_limits<size_t>::max());
  p.memory->recv(peer, kNever, 0, 0);
  p.hears = context_->createUnboundBuffer(p.last_words.data(), p.last_words.size());
  p.hears->recv(peer, kLastWords);
}

// No rank leaves, or moves anything, before all are connected.
void GlooMesh::greet() {
  uint8_t hello = 0;
  std::vector<uint8_t> heard(peers_.size());
  std::vector<Message> sends, receives;
  for (int peer = 0; peer < static_cast<int>(peers_.size()); ++peer) {
    sends.push_back({peer, host_tensor(&hello, {1})});
    receives.push_back({peer, host_tensor(&heard[peer], {1})});
  }
  move(kConnecting, sends, receives);
}

bool GlooMesh::to_other(const Message& message) const {
  return message.peer != group_.rank && is_for(message, message.peer);
}

void GlooMesh::move(const char* what, std::span<const Message> sends, std::span<const Message> receives) {
  if (!failure_.empty()) throw Error(what, failure_, kMend);
  int peer = group_.rank;
  std::string why;
  alarm_.set(timeout_);
  try {
    post(peer, sends, receives);
    if (!finish(peer, sends, receives)) why = late(peer);
  } catch (const std::exception&) {
    why = lost(peer);
  }
  if (alarm_.clear() && why.empty()) why = late(peer);
  if (!why.empty()) fail(what, why);
}

// Sets `peer` to the rank that a throw is about.
void GlooMesh::post(int& peer, std::span<const Message> sends, std::span<const Message> receives) {
  for (const Message& message : receives) {
    if (!to_other(message)) continue;
    Peer& p = peers_[peer = message.peer];
    p.memory->recv(peer, p.received++, address(message.data.data), message.data.bytes());
  }
  for (const Message& message : sends) {
    if (!to_other(message)) continue;
    Peer& p = peers_[peer = message.peer];
    p.memory->send(peer, p.sent++, address(message.data.data), message.data.bytes());
  }
}

// Returns false where `peer` let the time run out.
bool GlooMesh::finish(int& peer, std::span<const Message> sends, std::span<const Message> receives) {
  for (const Message& message : receives) {
    if (!to_other(message)) continue;
    auto& memory = *peers_[peer = message.peer].memory;
    if (!wait_or_take([&] { return memory.waitRecv(nullptr, kNoTimeout); })) return false;
  }
  for (const Message& message : sends) {
    if (!to_other(message)) continue;
    auto& memory = *peers_[peer = message.peer].memory;
    if (!wait_or_take([&] { return memory.waitSend(nullptr, kNoTimeout); })) return false;
  }
  return true;
}

void GlooMesh::end_waits() {
  for (Peer& peer : peers_) {
    if (!peer.memory) continue;
    peer.memory->abortWaitRecv();
    peer.memory->abortWaitSend();
  }
}

// Tells the others why, and leaves: nothing writes to the memory of messages any more.
void GlooMesh::fail(const char* what, const std::string& why) {
  failure_ = why;
  LastWords words{};
  std::copy_n(why.data(), std::min(why.size(), words.size() - 1), words.data());
  for (int peer = 0; peer < static_cast<int>(peers_.size()); ++peer) {
    try {
      if (peer != group_.rank) peers_[peer].memory->send(peer, kLastWords, address(&words), words.size());
    } catch (const std::exception&) {  // the peer is gone
    }
  }
  peers_.clear();
  context_.reset();
  throw Error(what, failure_, kMend);
}

std::string GlooMesh::late(int peer) const {
  return fmt::format("rank {} of {} did not answer within {:g} s", group_.ranks[peer], group_.world,
                     std::chrono::duration<double>(timeout_).count());
}

// Why `peer` is lost: a rank that left because of another one has said so.
std::string GlooMesh::lost(int peer) {
  for (int p = 0; p < static_cast<int>(peers_.size()); ++p) {
    const LastWords& words = peers_[p].last_words;
    if (p != group_.rank && is_gone(p) && words[0] != 0)
      return printable({words.data(), strnlen(words.data(), words.size())});
  }
  return fmt::format("rank {} of {} was lost", group_.ranks[peer], group_.world);
}

bool GlooMesh::is_gone(int peer) {
  try {
    peers_[peer].memory->recv(peer, kNever, 0, 0);
    return false;
  } catch (const std::exception&) {
    return true;
  }
}

}  // namespace mixtune
