#include "data/gpt_split.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "data/numpy_rules.h"

namespace mixtune {

namespace {

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

// Parses a weight in fixed notation, as Megatron takes it.
bool parse_weight(std::string_view text, double& weight) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), weight, std::chars_format::fixed);
  return error == std::errc() && end == text.data() + text.size() && weight >= 0 && std::isfinite(weight);
}

}  // namespace

GptSplit split_sequences(std::string_view split, int64_t sequences, std::string_view where) {
  const auto refuse = [&] {
    throw UserError(where, fmt::format("'{}' is not a split", printable(split)),
                    "give the weights of training, validation and test, as in 990,9,1");
  };
  std::array<double, 3> weights = {};
  double sum = 0;
  size_t count = 0;
  for (std::string_view rest = split;;) {
    const size_t comma = rest.find(',');
    if (count == weights.size() || !parse_weight(trimmed(rest.substr(0, comma)), weights[count])) refuse();
    sum += weights[count++];
    if (comma == rest.npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (!(sum > 0 && std::isfinite(sum))) refuse();

  // Python's round(), which goes to the even number from halfway.
  double share = 0;
  const auto next = [&](double weight) {
    const double end = share + weight;
    const auto border = [&](double part) {
      return std::llrint(part * static_cast<double>(sequences));
    };
    const SequenceRange range = end > share ? SequenceRange{border(share), border(end)} : SequenceRange{};
    share = end;
    return range;
  };
  const std::vector<double> normalized = numpy_normalize(weights);
  return {next(normalized[0]), next(normalized[1]), next(normalized[2]), {normalized[0], normalized[1], normalized[2]}};
}

}  // namespace mixtune
