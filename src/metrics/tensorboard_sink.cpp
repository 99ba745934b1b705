#include "metrics/tensorboard_sink.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/staged.h"
#include "metrics/fields.h"

namespace mixtune {

namespace {

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

const std::string& begun(const std::string& path, int64_t first_step) {
  const double now = wall_time();
  write_whole_file(path, framed(opening_event(now)) + framed(session_event(now, first_step)), Existing::kRefused);
  return path;
}

const char* tag_of(const ScalarField<StepRecord>& field, const StepRecord&) {
  return field.tag;
}

template <class Record, class Fields>
std::vector<Scalar> scalars_of(const Record& record, const Fields& fields) {
  std::vector<Scalar> scalars;
  for (const ScalarField<Record>& field : fields)
    if (*field.tag != '\0')
      scalars.push_back({tag_of(field, record), static_cast<float>(field.get(record) * field.tag_factor)});
  return scalars;
}

void add_scalars(const ParallelRecord& r, std::vector<Scalar>& scalars) {
  for (const RankField& field : kRankFields)
    for (size_t rank = 0; rank < r.ranks.size(); ++rank)
      scalars.push_back({fmt::format("rank_{}/{}", field.name, rank), static_cast<float>(field.get(r.ranks[rank]))});
}

// One for each number of the list.
template <class Number>
void add_list(const std::string& name, const std::vector<Number>& list, std::vector<Scalar>& scalars) {
  for (size_t i = 0; i < list.size(); ++i)
    scalars.push_back({fmt::format("{}/{}", name, i), static_cast<float>(list[i])});
}

void add_scalars(const RouterRecord& r, bool layers, std::vector<Scalar>& scalars) {
  add_list("expert_tokens", r.expert_tokens, scalars);
  if (!layers) return;
  for (const LayerField& field : kLayerFields) add_list(field.name, r.*field.numbers, scalars);
}

void add_scalars(const std::vector<OperandLoss>& operands, std::vector<Scalar>& scalars) {
  for_each_number(
      operands,
      [&](const std::string& name, double share) {
        scalars.push_back({name, static_cast<float>(share)});
      },
      [&](const std::string& name, const std::vector<double>& of_layers) { add_list(name, of_layers, scalars); });
}

constexpr int64_t kCell = 12;  // pixels
constexpr int kWhite = 255;

// Of a load by the mean: white is balance, blue less, red more, at their fullest nothing and twice the mean.
std::array<char, 3> colour_of(double load) {
  const double off = std::clamp(load - 1, -1.0, 1.0);
  const auto pale = static_cast<char>(kWhite - std::lround(std::abs(off) * kWhite));
  const auto full = static_cast<char>(kWhite);
  return off < 0 ? std::array{pale, pale, full} : std::array{full, pale, pale};
}

// A row of cells for each layer, a column for each expert.
Picture picture_of(const std::vector<std::vector<int64_t>>& layers) {
  Picture picture{
      .tag = "layer_expert_load", .width = kCell * std::ssize(layers[0]), .height = kCell * std::ssize(layers)};
  for (const std::vector<int64_t>& counts : layers) {
    const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
    std::string row;
    for (const int64_t count : counts) {
      const std::array<char, 3> colour = colour_of(mean > 0 ? static_cast<double>(count) / mean : 0);
      for (int64_t pixel = 0; pixel < kCell; ++pixel) row.append(colour.data(), colour.size());
    }
    for (int64_t line = 0; line < kCell; ++line) picture.pixels += row;
  }
  return picture;
}

std::vector<Counts> counts_of(const std::vector<std::vector<int64_t>>& layers) {
  std::vector<Counts> all;
  for (size_t layer = 0; layer < layers.size(); ++layer)
    all.push_back({fmt::format("layer_expert_tokens/{}", layer), {layers[layer].begin(), layers[layer].end()}});
  return all;
}

}  // namespace

TensorBoardSink::TensorBoardSink(const std::string& path, int64_t first_step) : file_(begun(path, first_step), true) {}

void TensorBoardSink::step(const StepRecord& r) {
  std::vector<Scalar> scalars = scalars_of(r, kStepFields);
  if (r.parallel) add_scalars(*r.parallel, scalars);
  if (r.routers) add_scalars(*r.routers, shows_layers(r.step), scalars);
  if (r.operands) add_scalars(*r.operands, scalars);
  if (!r.routers || !shows_layers(r.step) || r.routers->layer_expert_tokens.empty()) return write(r.step, scalars);
  const std::vector<std::vector<int64_t>>& layers = r.routers->layer_expert_tokens;
  const Picture picture = picture_of(layers);
  file_.write(framed(summary_event(wall_time(), r.step, scalars, counts_of(layers), &picture)));
}

void TensorBoardSink::evaluation(const EvalRecord& r) {
  write(r.step, scalars_of(r, kEvalFields));
}

void TensorBoardSink::write(int64_t step, const std::vector<Scalar>& scalars) {
  file_.write(framed(summary_event(wall_time(), step, scalars)));
}

}  // namespace mixtune
