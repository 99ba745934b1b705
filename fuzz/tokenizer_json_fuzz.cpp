// Any bytes as a tokenizer.json: refused with a UserError, or one that encodes and decodes any text without harm.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/temp_folder.h"
#include "data/tokenizer.h"

using namespace mixtune;

namespace {

void use(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<TextSpan> spans = tokenizer.split_special(text);
  size_t length = 0;
  for (const TextSpan& span : spans) {
    length += span.text.size();
    if (span.special && !tokenizer.special_id(span.text)) std::abort();
  }
  const EncodedSpans encoded = tokenizer.encode_spans(spans);
  if (length != text.size() || encoded.ids.size() != encoded.begins.size()) std::abort();
  for (size_t i = 0; i < encoded.ids.size(); ++i)
    if (encoded.begins[i] > text.size() || (i > 0 && encoded.begins[i] < encoded.begins[i - 1])) std::abort();
  tokenizer.decode(encoded.ids);
  tokenizer.decode(tokenizer.encode(text));
}

}  // namespace

// Up to a zero byte the tokenizer.json, behind it a tokenizer_config.json.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  static const TempFolder folder;
  const size_t end = input.find('\0');
  const std::string config = folder / "tokenizer_config.json";
  std::ofstream(folder / "tokenizer.json", std::ios::binary) << input.substr(0, end);
  std::filesystem::remove(config);
  if (end != input.npos) std::ofstream(config, std::ios::binary) << input.substr(end + 1);
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = open_tokenizer(folder.path());
  } catch (const UserError&) {
    return 0;
  }
  using std::string_view_literals::operator""sv;
  use(*tokenizer, "ab <s> \n</s>abab a\xc3\xa9\xe2\x96\x81 \xff\0\x01 <x>  x"sv);
  use(*tokenizer, input.substr(0, 4096));
  return 0;
}
