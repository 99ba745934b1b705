// NF4 as bitsandbytes quantises on a CPU: the fixture of scripts/make_nf4_fixtures.py. (What it dequantises:
// src/checkpoint/four_bit_test.cpp.)
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/test_paths.h"
#include "checkpoint/convert.h"
#include "checkpoint/quant_state.h"
#include "checkpoint/safetensors.h"
#include "kernels/four_bit/nf4.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

const std::string kFixture = source_path("tests/fixtures/nf4");

std::string bytes_in(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* tensor = file.find(name);
  return tensor ? file.file().read(tensor->begin, tensor->bytes()) : "";
}

// Values of any type, as fp32.
Buffer<float> values_in(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& tensor = *file.find(name);
  Buffer<float> values({tensor.shape.elements()});
  const std::string bytes = bytes_in(file, name);
  decode(std::as_bytes(std::span(bytes)), *tensor.dtype, values);
  return values;
}

std::string text_of(const std::vector<uint8_t>& bytes) {
  return {bytes.begin(), bytes.end()};
}

// The code of the nearest value, by a walk over all.
int nearest(const Buffer<float>& map, double x) {
  int code = 0;
  for (int i = 1; i < map.size(); ++i)
    if (std::abs(map[i] - x) < std::abs(map[code] - x)) code = i;
  return code;
}

// How bitsandbytes finds a code on a CPU: the nearest of what is left of x in [-1, 1] in steps of 2 / 65535.
int code_on_their_cpu(const Buffer<float>& map, float x) {
  const float step = std::floor((x + 1) * 0.5F * 65535 + 0.5F);
  return nearest(map, static_cast<double>(step) / 65535 * 2 - 1);
}

TEST(Nf4Parity, TheDynamicMapIsTheirs) {
  const SafetensorsFile expected(kFixture + "/expected.safetensors");
  const Buffer<float> map = values_in(expected, "dynamic_map");
  for (int i = 0; i < 256; ++i) EXPECT_EQ(dynamic_map()[i], map[i]) << i;
}

TEST(Nf4Parity, TheirCpuRoundsBeforeItFindsACode) {
  const SafetensorsFile file(kFixture + "/blockwise.safetensors"), expected(kFixture + "/expected.safetensors");
  const Buffer<float> x = values_in(file, "x"), absmax = values_in(file, "absmax"),
                      map = values_in(expected, "dynamic_map");
  const std::string codes = bytes_in(file, "codes");
  for (int64_t i = 0; i < x.size(); ++i)
    if (const float most = absmax[i / 256]; most > 0) {
      EXPECT_EQ(code_on_their_cpu(map, x[i] / most), static_cast<uint8_t>(codes[i])) << i;
    }
}

// Codes and fp32 absmax: bit for bit. Absmax in 8 bits: the offset to its last bit or two, and with theirs each code
// but for their rounding, which is the only other difference.
TEST(Nf4Parity, QuantisesAsTheirs) {
  const SafetensorsFile model(kFixture + "/model.safetensors"), expected(kFixture + "/expected.safetensors");
  const Buffer<float> map = values_in(expected, "dynamic_map");
  TestCtx ctx;
  int tensors = 0, nested = 0;
  for (const auto& [name, given] : expected.tensors()) {
    constexpr std::string_view kGiven = ".given";
    if (!name.ends_with(kGiven)) continue;
    const std::string x_name = name.substr(0, name.size() - kGiven.size());
    const QuantState state = parse_quant_state(bytes_in(model, x_name + ".quant_state.bitsandbytes__nf4"), x_name);
    Buffer<float> x = values_in(expected, name), absmax({state.blocks()});
    std::vector<uint8_t> codes((x.size() + 1) / 2);
    const Tensor codes_tensor = {codes.data(), {std::ssize(codes)}, DType::kU8, {}};
    nf4_quantise(ctx, {.x = x, .to = {.elements = x.size(), .codes = codes_tensor, .absmax = absmax}});
    EXPECT_TRUE(text_of(codes) == bytes_in(model, x_name)) << x_name;
    ++tensors;
    if (!state.offset) {
      const Buffer<float> theirs = values_in(model, x_name + ".absmax");
      for (int64_t b = 0; b < absmax.size(); ++b) EXPECT_EQ(absmax[b], theirs[b]) << x_name;
      continue;
    }
    ++nested;
    const Buffer<float> nested_absmax = values_in(model, x_name + ".nested_absmax");
    const std::string theirs = bytes_in(model, x_name + ".absmax");
    for (int64_t b = 0; b < absmax.size(); ++b)
      if (const float most = nested_absmax[b / kNestedBlock]; most > 0) {
        EXPECT_EQ(code_on_their_cpu(map, (absmax[b] - *state.offset) / most), static_cast<uint8_t>(theirs[b]))
            << x_name;
      }

    std::vector<uint8_t> own(absmax.size());
    Buffer<float> own_nested({nested_absmax.size()}), own_map = map, offset({1});
    nf4_quantise(ctx, {.x = x,
                       .to = {.elements = x.size(),
                              .codes = codes_tensor,
                              .absmax = {own.data(), {std::ssize(own)}, DType::kU8, {}},
                              .nested_absmax = own_nested,
                              .nested_map = own_map,
                              .offset = offset}});
    EXPECT_TRUE(text_of(codes) == bytes_in(model, x_name)) << x_name;
    EXPECT_NEAR(offset[0], *state.offset, 2.4e-7 * *state.offset) << x_name;
    for (int64_t b = 0; b < absmax.size(); ++b)
      if (const double most = nested_absmax[b / kNestedBlock]; most > 0) {
        const double wanted = (static_cast<double>(absmax[b]) - *state.offset) / most;
        const double their_error = std::abs(map[static_cast<uint8_t>(theirs[b])] - wanted);
        EXPECT_LE(std::abs(map[own[b]] - wanted), their_error + 1e-6) << x_name << " " << b;
        EXPECT_LE(their_error, std::abs(map[own[b]] - wanted) + 2.0 / 65535 + 1e-6) << x_name << " " << b;
      }
  }
  EXPECT_EQ(tensors, 11);
  EXPECT_EQ(nested, 7);
}

}  // namespace
}  // namespace mixtune
