#include "checkpoint/written_digests.h"

#include <functional>
#include <numeric>

#include "checkpoint/read_in_turn.h"
#include "checkpoint/test_tensors.h"

namespace mixtune {
namespace {

struct Told {
  uint64_t begin, end;
};

// A checkpoint of one file, state/w.safetensors: tensors of 12, 8 and 4 bytes, and two without any. What is told of it
// is what it has on the disk.
class WrittenDigestsTest : public testing::Test {
 protected:
  WrittenDigestsTest() {
    std::filesystem::create_directory(folder_ / "state");
    write({{{"a", DType::kF32, {3}}, {1, 2, 3}},
           {{"none", DType::kF32, {0}}, {}},
           {{"b", DType::kBF16, {2, 2}}, {4, 5, 6, 7}},
           {{"c", DType::kBF16, {2}}, {8, 9}},
           {{"nothing", DType::kBF16, {0}}, {}}});
  }

  void write(const std::vector<TestTensor>& tensors) {
    std::filesystem::remove(path_);
    write_tensors(path_, tensors);
    good_ = get(path_);
    written_["state/w.safetensors"] = {};
    const SafetensorsFile file(path_);
    for (const auto& [name, tensor] : file.tensors()) {
      Xxh3 digest;
      digest.add(bytes_of_file(good_, tensor.begin, tensor.end));
      written_["state/w.safetensors"].tensors[name] = digest.take();
    }
  }

  static std::span<const std::byte> bytes_of_file(const std::string& content, uint64_t begin, uint64_t end) {
    return std::as_bytes(std::span(content)).subspan(begin, end - begin);
  }

  Told place(std::string_view tensor) const {
    const SafetensorsFile file(path_);
    return {file.find(tensor)->begin, file.find(tensor)->end};
  }
  Told all() const { return {place("a").begin, good_.size()}; }

  // The stretches cut into pieces of `most` bytes.
  static std::vector<Told> pieces(const std::vector<Told>& stretches, uint64_t most) {
    std::vector<Told> cut;
    for (const auto& [begin, end] : stretches)
      for (uint64_t from = begin; from < end; from += most) cut.push_back({from, std::min(from + most, end)});
    return cut;
  }

  void tell(const std::vector<Told>& stretches) {
    const SafetensorsFile file(path_);
    const std::string content = get(path_);
    WrittenDigests digests(folder_.path(), written_);
    for (const auto& [begin, end] : stretches) digests.add(file, begin, bytes_of_file(content, begin, end));
    digests.finish();
  }

  void flip(uint64_t byte) {
    std::string content = good_;
    content.at(byte) = static_cast<char>(content.at(byte) ^ 1);
    put(path_, content);
  }

  // Of all bytes of tensors, one at a time, those of `found` and no others are missed where they are flipped.
  void expect_found(const std::vector<Told>& stretches, const std::vector<std::string>& found) {
    EXPECT_NO_THROW(tell(stretches));
    for (const char* name : {"a", "b", "c"})
      for (auto [byte, end] = place(name); byte < end; ++byte) {
        SCOPED_TRACE(fmt::format("byte {} of {}", byte, name));
        flip(byte);
        if (std::ranges::find(found, name) == found.end())
          EXPECT_NO_THROW(tell(stretches));
        else
          expect_user_error(
              [&] { tell(stretches); },
              {path_ + ": tensor " + name + ": its bytes are not those that were written (XXH3 ",
               ", was " + written_.at("state/w.safetensors").tensors.at(name) + "); resume from another"});
        put(path_, good_);
      }
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "state/w.safetensors";
  std::string good_;
  StoredFiles written_;
};

TEST_F(WrittenDigestsTest, WholeTensorsInStretchesOfAnySize) {
  for (const uint64_t most : {1, 3, 8, 12, 13, 1000}) expect_found(pieces({all()}, most), {"a", "b", "c"});
}

TEST_F(WrittenDigestsTest, OnlyThoseThatAreTold) {
  expect_found({place("b")}, {"b"});
  expect_found({place("a"), place("c")}, {"a", "c"});
  expect_found({}, {});
}

TEST_F(WrittenDigestsTest, OfAFirstPartTheRestIsRead) {
  const auto [begin, end] = place("a");
  for (uint64_t part = begin + 1; part < end; ++part) {
    expect_found({{begin, part}}, {"a"});
    expect_found({{begin, part}, place("c")}, {"a", "c"});
    expect_found({{begin, part}, {part + 1, all().end}}, {"a", "b", "c"});  // with a hole
  }
}

TEST_F(WrittenDigestsTest, ASecondPartIsLeftToWhoReadsTheFirst) {
  const auto [begin, end] = place("a");
  for (uint64_t part = begin + 1; part < end; ++part) {
    expect_found({{part, end}}, {});
    expect_found({{part, end - 1}, place("b")}, {"b"});
    expect_found({{part, all().end}}, {"b", "c"});
  }
}

TEST_F(WrittenDigestsTest, BytesThatAreToldTwice) {
  const auto [begin, end] = place("b");
  expect_found({{begin, end}, {begin, end}}, {"b"});
  expect_found({{begin, end - 1}, {begin, end - 2}, {begin + 1, all().end}}, {"b", "c"});
}

// The disk has other bytes than those that are told: nobody looks.
TEST_F(WrittenDigestsTest, NothingIsReadThatIsTold) {
  for (uint64_t byte = all().begin; byte < good_.size(); ++byte) {
    flip(byte);
    const SafetensorsFile file(path_);
    WrittenDigests digests(folder_.path(), written_);
    for (const auto& [begin, end] : pieces({all()}, 5)) digests.add(file, begin, bytes_of_file(good_, begin, end));
    EXPECT_NO_THROW(digests.finish());
  }
}

TEST_F(WrittenDigestsTest, WhatHasNoDigestIsNotChecked) {
  StoredFile& file = written_.at("state/w.safetensors");
  file.tensors.erase("b");
  expect_found({all()}, {"a", "c"});
  file.tensors.clear();
  expect_found({all()}, {});
  written_ = {{"w.safetensors", {.tensors = {{"a", "0"}}}}};  // of another folder
  expect_found({all()}, {});
  written_.clear();
  expect_found({all()}, {});
}

TEST_F(WrittenDigestsTest, OfSeveralFiles) {
  std::filesystem::copy_file(path_, folder_ / "x.safetensors");
  written_["x.safetensors"] = written_["state/w.safetensors"];
  const SafetensorsFile other(folder_ / "x.safetensors");
  const auto [begin, end] = place("c");
  for (const bool damaged : {false, true}) {
    if (damaged) flip(end - 1);
    const SafetensorsFile file(path_);
    const std::string content = get(path_);
    WrittenDigests digests(folder_.path(), written_);
    digests.add(file, begin, bytes_of_file(content, begin, begin + 1));
    const auto second = [&] {
      digests.add(other, place("a").begin, bytes_of_file(good_, place("a").begin, good_.size()));
    };
    damaged ? expect_user_error(second, {path_ + ": tensor c: "}) : second();
    if (damaged) continue;
    std::string bad = good_;
    bad.at(place("a").begin) ^= 1;
    digests.add(file, begin, bytes_of_file(content, begin, good_.size()));
    expect_user_error([&] { digests.add(other, place("a").begin, bytes_of_file(bad, place("a").begin, good_.size())); },
                      {"x.safetensors: tensor a: "});
  }
}

TEST_F(WrittenDigestsTest, NamesMayStandInAnyOrder) {
  write({{{"z", DType::kF32, {2}}, {1, 2}}, {{"y", DType::kF32, {2}}, {3, 4}}});
  const auto [begin, end] = place("z");
  const std::vector<Told> told = pieces({{begin, good_.size()}}, 3);
  EXPECT_NO_THROW(tell(told));
  for (const uint64_t byte : {begin, end}) {
    flip(byte);
    expect_user_error([&] { tell(told); }, {byte == begin ? "tensor z: " : "tensor y: "});
  }
}

TEST_F(WrittenDigestsTest, ARestThatIsReadInSeveralStretches) {
  std::vector<float> values((2 * kMostInTurn + 100) / sizeof(float));
  std::iota(values.begin(), values.end(), 1.f);
  write({{{"a", DType::kF32, {std::ssize(values)}}, values}, {{"b", DType::kF32, {1}}, {1}}});
  const auto [begin, end] = place("a");
  const std::vector<Told> first = {{begin, begin + 10}};
  EXPECT_NO_THROW(tell(first));
  for (const uint64_t byte : {begin, begin + 10, begin + 10 + kMostInTurn, end - 1}) {
    flip(byte);
    expect_user_error([&] { tell(first); }, {"tensor a: its bytes are not"});
  }
  flip(end);  // the next one's first
  EXPECT_NO_THROW(tell(first));
}

// Then it is of two contents, and no damage of the disk.
TEST_F(WrittenDigestsTest, AFileThatChangesMeanwhile) {
  const SafetensorsFile file(path_);
  const auto [begin, end] = all();
  flip(begin);
  const std::string content = get(path_);
  put(path_, content + "x");
  WrittenDigests digests(folder_.path(), written_);
  try {
    digests.add(file, begin, bytes_of_file(content, begin, end));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("changed while it was read"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace mixtune
