#include "kernels/gemm/gemm_choices.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

constexpr std::string_view kMachine = "NVIDIA H100 80GB HBM3, cuBLASLt 13.1.0";

TEST(GemmBuckets, AreTwoAnOctave) {
  std::vector<int64_t> buckets;
  for (int64_t tokens = 1; tokens <= 8192; ++tokens) {
    const int64_t bucket = token_bucket(tokens);
    ASSERT_GE(bucket, tokens);
    ASSERT_EQ(token_bucket(bucket), bucket);
    if (buckets.empty() || buckets.back() != bucket) buckets.push_back(bucket);
  }
  EXPECT_EQ(buckets, (std::vector<int64_t>{128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192}));
  EXPECT_EQ(token_bucket(0), 128);
}

TEST(GemmBuckets, AreOfTheSizeThatCountsTokens) {
  const GemmKey forward = {.m = 700, .n = 50, .k = 60};
  EXPECT_EQ(forward.bucket(), forward.with_tokens(768));
  EXPECT_EQ(forward.bucket().m, 768);
  const GemmKey gradient = {.m = 50, .n = 60, .k = 700, .trans_a = true};
  EXPECT_EQ(gradient.bucket().k, 768);
  EXPECT_EQ(gradient.bucket().m, 50);
  const GemmKey both = {.m = 50, .n = 60, .k = 700, .trans_a = true, .trans_b = true};
  EXPECT_EQ(both.bucket(), both);
}

TEST(GemmBuckets, KnowAlignment) {
  EXPECT_EQ(alignment_class(0), 256);
  EXPECT_EQ(alignment_class(512), 256);
  EXPECT_EQ(alignment_class(128), 16);
  EXPECT_EQ(alignment_class(48), 16);
  EXPECT_EQ(alignment_class(40), 8);
  EXPECT_EQ(alignment_class(2), 2);
}

GemmChoices some_choices() {
  GemmChoices choices;
  const GemmKey key = {.m = 128, .n = 28672, .k = 4096, .operands = DType::kBF16, .result = DType::kBF16};
  for (const int64_t tokens : {128, 256, 384})
    choices[key.with_tokens(tokens)] = {{1, 2, static_cast<uint64_t>(tokens), ~0ull}, 12.5};
  GemmKey codes = key;
  codes.operands = DType::kF8E4M3;
  choices[codes] = {{7}, 3.5};
  codes.scales = DType::kF8E8M0;
  choices[codes] = {{8}, 2.5};
  GemmKey gradient = key;
  gradient.result = DType::kF32;
  gradient.trans_a = gradient.accumulate = true;
  gradient.alignment = 16;
  choices[gradient] = {{7}, 0};
  return choices;
}

void expect_same(const GemmChoices& a, const GemmChoices& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [key, choice] : a) {
    ASSERT_TRUE(b.contains(key)) << key.str();
    EXPECT_EQ(b.at(key).algorithm, choice.algorithm);
    EXPECT_EQ(b.at(key).microseconds, choice.microseconds);
  }
}

TEST(GemmChoices, SurviveTheirText) {
  const std::string text = format_choices(kMachine, some_choices());
  EXPECT_NE(text.find("bf16 fp32 tn 128x28672x4096 += 16 "), std::string::npos) << text;
  const ReadChoices read = parse_choices(text, kMachine);
  EXPECT_TRUE(read.of_this_machine);
  EXPECT_EQ(read.bad_lines, 0);
  expect_same(read.choices, some_choices());
}

TEST(GemmChoices, OfThoseOnlyTheMeasuredOnesNeedToBeSent) {
  const GemmChoices choices = some_choices();
  GemmChoices measured = measured_among(choices);
  EXPECT_EQ(measured.size(), choices.size() - 1);
  measured.insert(choices.begin(), choices.end());
  expect_same(measured, choices);
}

TEST(GemmChoices, TheDigestTellsAlgorithmsApartNotTimes) {
  const std::string digest = digest_of(kMachine, some_choices());
  EXPECT_EQ(digest.size(), 16u);
  GemmChoices other = some_choices();
  other.begin()->second.microseconds *= 2;
  EXPECT_EQ(digest_of(kMachine, other), digest);
  EXPECT_NE(digest_of("NVIDIA H200, cuBLASLt 13.1.0", other), digest);
  ++other.begin()->second.algorithm[7];
  EXPECT_NE(digest_of(kMachine, other), digest);
  other = some_choices();
  other.erase(other.begin());
  EXPECT_NE(digest_of(kMachine, other), digest);
}

TEST(GemmChoices, OfAnotherMachineAreNotTaken) {
  const std::string text = format_choices(kMachine, some_choices());
  for (const std::string& other : {format_choices("NVIDIA H200, cuBLASLt 13.1.0", some_choices()), std::string(),
                                   std::string("\n"), text.substr(1), std::string(1000, '\0')}) {
    const ReadChoices read = parse_choices(other, kMachine);
    EXPECT_FALSE(read.of_this_machine);
    EXPECT_TRUE(read.choices.empty());
  }
}

// Tries every cut and every change of a byte: the choices left are those that were written, or fewer.
TEST(GemmChoices, DamageIsLeftOut) {
  const GemmChoices written = some_choices();
  const std::string text = format_choices(kMachine, written);
  const auto expect_harmless = [&](const std::string& damaged) {
    const ReadChoices read = parse_choices(damaged, kMachine);
    for (const auto& [key, choice] : read.choices)
      EXPECT_TRUE(written.contains(key) && written.at(key).algorithm == choice.algorithm) << key.str();
    return read.bad_lines;
  };
  for (size_t size = 0; size < text.size(); ++size) expect_harmless(text.substr(0, size));
  for (size_t i = text.find('\n') + 1; i < text.size() - 1; ++i)
    for (const char byte : {'\0', ' ', '9', '-', '\xFF'}) {
      if (text[i] == byte || text[i] == '\n') continue;
      std::string damaged = text;
      damaged[i] = byte;
      EXPECT_EQ(expect_harmless(damaged), 1) << i;
    }
}

TEST(GemmChoices, LinesThatMeanNothingAreCounted) {
  const std::string title = format_choices(kMachine, {});
  const std::string zeros(128, '0');
  for (const std::string& line : {std::string("x"), std::string(8, ' '), "fp64 bf16 nn 1x1x1 = 256 " + zeros + " 1.0 0",
                                  "bf16 bf16 nn 0x1x1 = 256 " + zeros + " 1.0 0",
                                  "bf16 bf16 nn 99999999999999999999x1x1 = 256 " + zeros + " 1.0 0",
                                  std::string(1 << 20, 'x'), std::string(1 << 20, ' ')}) {
    const ReadChoices read = parse_choices(title + line + "\n", kMachine);
    EXPECT_EQ(read.bad_lines, 1);
    EXPECT_TRUE(read.choices.empty());
  }
}

class GemmChoicesFile : public testing::Test {
 protected:
  const TempFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(GemmChoicesFile, IsReplacedAtOnce) {
  const std::string path = folder_ + "/new/folder/choices.txt";
  EXPECT_TRUE(read_choices(path, kMachine).empty());
  add_choices(path, kMachine, {});
  add_choices(path, kMachine, some_choices());
  expect_same(read_choices(path, kMachine), some_choices());
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/new/folder"))
    names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"choices.txt", "choices.txt.lock"}));
}

TEST_F(GemmChoicesFile, IsWrittenByOneAtATime) {
  const std::string path = folder_ + "/choices.txt";
  const Fd lock(open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(flock(lock.get(), LOCK_EX), 0);
  std::thread other([&] { add_choices(path, kMachine, some_choices()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(std::filesystem::exists(path));
  flock(lock.get(), LOCK_UN);
  other.join();
  expect_same(read_choices(path, kMachine), some_choices());
}

// A link in the lock's place is not followed.
TEST_F(GemmChoicesFile, IsWrittenWhereThereCanBeNoLock) {
  const std::string path = folder_ + "/choices.txt";
  std::filesystem::create_symlink(folder_ + "/elsewhere", path + ".lock");
  add_choices(path, kMachine, some_choices());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/elsewhere"));
  expect_same(read_choices(path, kMachine), some_choices());
}

TEST_F(GemmChoicesFile, NewChoicesReplaceOlderOnesOfTheSameProduct) {
  const std::string path = folder_ + "/choices.txt";
  GemmChoices all = some_choices(), newer;
  add_choices(path, kMachine, all);
  newer[all.begin()->first] = {{9, 9}, 3.5};
  newer[all.begin()->first.with_tokens(512)] = {{8}, 2.5};
  add_choices(path, kMachine, newer);
  for (const auto& [key, choice] : newer) all[key] = choice;
  expect_same(read_choices(path, kMachine), all);
}

TEST_F(GemmChoicesFile, KeepsWhatEveryJobMeasured) {
  constexpr int kJobs = 8, kTimes = 10;
  const std::string path = folder_ + "/choices.txt";
  const GemmKey key = {.m = 128, .n = 64, .k = 32};
  std::vector<std::thread> jobs;
  for (int job = 0; job < kJobs; ++job)
    jobs.emplace_back([&, job] {
      for (int i = 0; i < kTimes; ++i)
        add_choices(path, kMachine, {{key.with_tokens(1 + job * kTimes + i), {{static_cast<uint64_t>(job)}, 1.5}}});
    });
  for (std::thread& job : jobs) job.join();
  EXPECT_EQ(read_choices(path, kMachine).size(), static_cast<size_t>(kJobs * kTimes));
}

TEST_F(GemmChoicesFile, OddFilesGiveNothingAndDoNotThrow) {
  EXPECT_TRUE(read_choices(folder_, kMachine).empty());
  std::ofstream(folder_ + "/large") << format_choices(kMachine, some_choices()) << std::string(5 << 20, '\n');
  EXPECT_TRUE(read_choices(folder_ + "/large", kMachine).empty());
  std::ofstream(folder_ + "/file") << "";
  add_choices(folder_ + "/file/choices.txt", kMachine, some_choices());
  std::filesystem::create_directory(folder_ + "/folder");
  add_choices(folder_ + "/folder", kMachine, some_choices());
}

}  // namespace
}  // namespace mixtune
