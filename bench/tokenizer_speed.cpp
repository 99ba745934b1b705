// Encodes texts with a folder's tokeniser on all of OpenMP's threads, for bench/peers/tokenizer_ids.py to compare:
//     tokenizer_speed FOLDER TEXTS IDS plain|special
// TEXTS: of each its size, a u32, and its bytes. IDS, written: of each the number of its ids, a u32, and these, i32.
// With `special`, names of special tokens become these. Prints the seconds that encoding took.
#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/tokenizer.h"

namespace mixtune {
namespace {

std::vector<std::string_view> read_texts(const std::string& bytes) {
  std::vector<std::string_view> texts;
  for (size_t at = 0; at < bytes.size();) {
    uint32_t size = 0;
    MT_CHECK(bytes.size() - at >= sizeof size);
    std::memcpy(&size, bytes.data() + at, sizeof size);
    at += sizeof size;
    MT_CHECK(bytes.size() - at >= size);
    texts.push_back(std::string_view(bytes).substr(at, size));
    at += size;
  }
  return texts;
}

void write_ids(const std::vector<std::vector<int32_t>>& ids, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  for (const std::vector<int32_t>& list : ids) {
    const auto size = static_cast<uint32_t>(list.size());
    file.write(reinterpret_cast<const char*>(&size), sizeof size);
    file.write(reinterpret_cast<const char*>(list.data()), static_cast<std::streamsize>(size * sizeof(int32_t)));
  }
  MT_CHECK(file.flush());
}

int run(const std::vector<std::string>& arguments) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(arguments[0]);
  std::ifstream file(arguments[1], std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const std::vector<std::string_view> texts = read_texts(bytes);
  const bool special = arguments[3] == "special";
  std::vector<std::vector<int32_t>> ids(texts.size());
  const auto begin = std::chrono::steady_clock::now();
#pragma omp parallel for schedule(dynamic, 64)
  for (size_t i = 0; i < texts.size(); ++i)
    ids[i] = special ? tokenizer->encode_spans(tokenizer->split_special(texts[i])).ids : tokenizer->encode(texts[i]);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  write_ids(ids, arguments[2]);
  fmt::print("{:.4f}\n", seconds.count());
  return 0;
}

}  // namespace
}  // namespace mixtune

int main(int count, char** arguments) {
  try {
    if (count == 5) return mixtune::run({arguments + 1, arguments + 5});
    fmt::print(stderr, "tokenizer_speed FOLDER TEXTS IDS plain|special\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  return 2;
}
