#include "metrics/event_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <vector>

#include "base/temp_folder.h"
#include "base/test_paths.h"
#include "metrics/testing.h"

namespace mixtune {
namespace {

constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();

// The messages of tests/fixtures/events/few, which TensorBoard's own library has written.
std::vector<std::string> few_events() {
  return {
      opening_event(1764450000.25),
      session_event(1764450000.5, 5),
      summary_event(1764450001.125, 5,
                    std::vector<Scalar>{{"lm loss", 3.25f}, {"learning-rate", 1e-5f}, {"a", 0.0f}, {"b", -0.0f}}),
      summary_event(
          1764450002.0, int64_t{1} << 40,
          std::vector<Scalar>{
              {"nan", std::numeric_limits<float>::quiet_NaN()}, {"inf", kFloatInfinity}, {"-inf", -kFloatInfinity}}),
      summary_event(1764450003.0, 0, std::vector<Scalar>{{std::string(300, 'x'), 1e-42f}, {"Ma\xC3\x9F", 16777216.0f}}),
      summary_event(1764450004.0, 128, {}),
  };
}

std::string file_of(const std::vector<std::string>& messages) {
  std::string bytes;
  for (const std::string& message : messages) bytes += framed(message);
  return bytes;
}

class EventFiles : public testing::Test {
 protected:
  // The steps of the events that are read in a file of these bytes, and where reading ends.
  std::pair<std::vector<int64_t>, uint64_t> read_steps(const std::string& bytes) {
    std::ofstream(folder_ / "events", std::ios::binary) << bytes;
    const InputFile file(folder_ / "events");
    EventReader reader(file);
    std::vector<int64_t> steps;
    while (const std::optional<Event> event = reader.next()) steps.push_back(event->step);
    return {steps, reader.end()};
  }

  TempFolder folder_;
};

TEST_F(EventFiles, AreTheBytesOfTensorBoardsOwnLibrary) {
  std::ifstream file(source_path("tests/fixtures/events/few"), std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  ASSERT_FALSE(expected.empty());
  EXPECT_TRUE(file_of(few_events()) == expected);
}

TEST_F(EventFiles, ReadBack) {
  const InputFile file(source_path("tests/fixtures/events/few"));
  EventReader reader(file);
  for (const std::string& message : few_events()) {
    const std::optional<Event> event = reader.next();
    ASSERT_TRUE(event);
    EXPECT_EQ(event->message, message);
    EXPECT_EQ(event->writer, message == few_events().front() ? "mixtune" : "");
  }
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(reader.end(), file.size());
  const std::vector<int64_t> steps = {0, 5, 5, int64_t{1} << 40, 0, 128};
  EXPECT_EQ(read_steps(file_of(few_events())), std::pair(steps, file.size()));
}

TEST_F(EventFiles, EndWhereTheyAreCut) {
  const std::string first = framed(few_events()[1]), second = framed(few_events()[2]);
  for (size_t size = 0; size <= first.size() + second.size(); ++size) {
    const auto [steps, end] = read_steps((first + second).substr(0, size));
    const size_t whole = size < first.size() ? 0 : size < first.size() + second.size() ? 1 : 2;
    EXPECT_EQ(steps.size(), whole) << size;
    EXPECT_EQ(end, whole == 0 ? 0 : whole == 1 ? first.size() : size) << size;
  }
}

TEST_F(EventFiles, EndWhereAnyBitIsWrong) {
  const std::string first = framed(few_events()[1]), second = framed(few_events()[2]);
  for (size_t bit = 0; bit < 8 * second.size(); ++bit) {
    std::string damaged = second;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    EXPECT_EQ(read_steps(first + damaged + first).second, first.size()) << bit;
  }
}

// Whatever checksums they have.
TEST_F(EventFiles, EndWhereAMessageIsNone) {
  const std::string first = framed(few_events()[1]);
  for (const std::string& message :
       {std::string("\x0F"), std::string("\x10"), std::string("\x10\xFF"), std::string("\x09\x01\x02"),
        std::string("\x2A\x05\x01"), std::string("\x2A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
        std::string("\x10") + std::string(11, '\xFF') + "\x01"})
    EXPECT_EQ(read_steps(first + framed(message)).second, first.size());
}

}  // namespace
}  // namespace mixtune
