#include "base/lines.h"

#include <gtest/gtest.h>

#include "base/output_file.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

std::vector<Line> lines_of(const std::string& content, size_t longest) {
  const TempFolder folder;
  write_file(folder / "file", content);
  const InputFile file(folder / "file");
  LineReader reader(file, longest);
  std::vector<Line> lines;
  while (std::optional<Line> line = reader.next()) lines.push_back(*line);
  return lines;
}

TEST(Lines, AreThoseOfTheFile) {
  const std::vector<Line> lines = lines_of("one\n\nthree", 5);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].text, "one");
  EXPECT_EQ(lines[0].end, 4u);
  EXPECT_TRUE(lines[1].is_whole && lines[1].text.empty());
  EXPECT_EQ(lines[1].end, 5u);
  EXPECT_EQ(lines[2].text, "three");
  EXPECT_EQ(lines[2].end, 10u);
  EXPECT_FALSE(lines[2].is_whole);
  EXPECT_TRUE(lines_of("", 5).empty());
  EXPECT_EQ(lines_of("x\n", 5).size(), 1u);
}

TEST(Lines, LongOnesAreNotKept) {
  const std::vector<Line> lines = lines_of("123456\n12345\n" + std::string(3 << 20, 'x') + "\nend\n", 5);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_TRUE(lines[0].is_too_long && lines[0].text.empty());
  EXPECT_EQ(lines[1].text, "12345");
  EXPECT_TRUE(lines[2].is_too_long && lines[2].is_whole);
  EXPECT_EQ(lines[3].text, "end");
  EXPECT_EQ(lines[3].end, 13u + (3 << 20) + 1 + 4);
}

TEST(Lines, GoOnOverPieces) {
  const std::string long_line(3 << 20, 'y');
  const std::vector<Line> lines = lines_of("a\n" + long_line + "\nb", 4 << 20);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].text, long_line);
  EXPECT_EQ(lines[2].text, "b");
}

// The end of a piece may be that of a line.
TEST(Lines, EndWhereAPieceEnds) {
  const std::vector<Line> lines = lines_of(std::string((1 << 20) - 1, 'z') + "\nb\n", 1 << 20);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(lines[0].is_whole);
  EXPECT_EQ(lines[0].end, 1u << 20);
  EXPECT_EQ(lines[1].text, "b");
}

}  // namespace
}  // namespace mixtune
