#include "data/byte_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "data/test_compress.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

std::string read_all(ByteStream& stream, size_t piece) {
  std::string out, buffer(piece, '\0');
  for (size_t n = 0; (n = stream.read(buffer)) > 0;) {
    out.append(buffer, 0, n);
    if (n == piece) continue;
    EXPECT_EQ(stream.read(buffer), 0u) << "a piece that is not full, and not the last";
    break;
  }
  return out;
}

class ByteStreamTest : public testing::Test {
 protected:
  std::string content_of(const std::string& bytes, size_t piece = 1000) {
    const InputFile file(folder_.write("data", bytes));
    return read_all(*open_byte_stream(file), piece);
  }
  std::string error_of(const std::string& bytes) {
    const std::string message = user_error([&] { content_of(bytes); });
    return message.empty() ? "" : message.substr(folder_.path("data").size());
  }

  TestFolder folder_;
};

// Lines that compress neither well nor badly.
std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += std::to_string(i * 2654435761u) + "\n";
  return text;
}

struct Kind {
  const char* name;
  Compression compression;
  std::string (*compress)(std::string_view);
};
const Kind kKinds[] = {{"gzip", Compression::kGzip, gzip}, {"zstd", Compression::kZstd, [](std::string_view text) {
                                                              return zstd(text);
                                                            }}};

TEST_F(ByteStreamTest, GivesBackWhatWasCompressedInPiecesOfAnySize) {
  for (const std::string& text : {std::string(), std::string("x"), lines(100'000), std::string(5 << 20, 'x')}) {
    EXPECT_EQ(content_of(text), text);
    for (const Kind& kind : kKinds)
      for (const size_t piece : {size_t{1000}, size_t{1} << 22})
        EXPECT_EQ(content_of(kind.compress(text), piece), text);
  }
  for (const Kind& kind : kKinds) EXPECT_EQ(content_of(kind.compress(lines(300)), 1), lines(300)) << kind.name;
}

TEST_F(ByteStreamTest, TellsCompressionByContent) {
  for (const Kind& kind : kKinds) {
    const InputFile file(folder_.write("x.jsonl", kind.compress("{}")));
    EXPECT_EQ(open_byte_stream(file)->compression(), kind.compression);
  }
  const InputFile plain(folder_.write("x.jsonl.gz", "{}"));
  EXPECT_EQ(open_byte_stream(plain)->compression(), Compression::kNone);
}

TEST_F(ByteStreamTest, ReadsSeveralMembersAndFrames) {
  const std::string a = lines(70'000), b = lines(3);
  for (const Kind& kind : kKinds) {
    EXPECT_EQ(content_of(kind.compress(a) + kind.compress("") + kind.compress(b)), a + b) << kind.name;
    std::string many;
    for (int i = 0; i < 2000; ++i) many += kind.compress("");
    EXPECT_EQ(content_of(many + kind.compress(b) + many), b) << kind.name;
  }
  const std::string skippable("\x50\x2A\x4D\x18\x03\0\0\0abc", 11);
  EXPECT_EQ(content_of(skippable + zstd(b) + skippable + zstd(b)), b + b);
}

TEST_F(ByteStreamTest, EveryCutIsAnError) {
  for (const Kind& kind : kKinds) {
    const std::string whole = kind.compress(lines(40)) + kind.compress("{}\n");
    const size_t first = kind.compress(lines(40)).size();
    for (size_t size = 4; size < whole.size(); ++size) {
      if (size == first) continue;
      EXPECT_EQ(error_of(whole.substr(0, size)), ": the " + std::string(kind.name) + " data is cut short at byte " +
                                                     std::to_string(size) + "; get or make the file again");
    }
  }
}

TEST_F(ByteStreamTest, EveryFlippedByteIsAnErrorOrLeavesTheContent) {
  const std::string text = lines(60);
  for (const Kind& kind : kKinds) {
    const std::string whole = kind.compress(text);
    int errors = 0;
    for (size_t i = 4; i < whole.size(); ++i) {
      std::string flipped = whole, content;
      flipped[i] = static_cast<char>(flipped[i] ^ 0x41);
      const std::string error = user_error([&] { content = content_of(flipped); });
      errors += !error.empty();
      if (error.empty()) {
        EXPECT_EQ(content, text) << kind.name << " byte " << i;
      }
      EXPECT_LT(error.size(), 300u);
    }
    EXPECT_GT(errors, static_cast<int>(whole.size()) - 20) << kind.name;  // but for times, names and the like
  }
}

TEST_F(ByteStreamTest, WhatFollowsTheLastMemberIsAnError) {
  for (const Kind& kind : kKinds) {
    EXPECT_THAT(error_of(kind.compress("{}") + "{\"a\": 1}\n"), HasSubstr("data is damaged before byte ")) << kind.name;
    EXPECT_THAT(error_of(kind.compress("{}") + std::string(512, '\0')), HasSubstr("data is damaged")) << kind.name;
  }
  EXPECT_THAT(error_of(gzip("{}") + zstd("{}")), HasSubstr("incorrect header check"));
}

TEST_F(ByteStreamTest, AWindowThatIsTooLargeIsRefusedWithTheCommand) {
  const std::string text = lines(1000);
  EXPECT_EQ(content_of(zstd(text, 27)), text);
  EXPECT_THAT(error_of(zstd(text, 28)),
              testing::AllOf(HasSubstr("needs a window of more than 128 MiB"), HasSubstr("zstd -dc --long=31 ")));
}

TEST_F(ByteStreamTest, AFileThatIsCutMeanwhileIsAnError) {
  const std::string path = folder_.write("data", gzip(lines(200'000)));
  const InputFile file(path);
  const std::unique_ptr<ByteStream> stream = open_byte_stream(file);
  std::string buffer(100, '\0');
  ASSERT_EQ(stream->read(buffer), 100u);
  std::filesystem::resize_file(path, 400'000);
  EXPECT_THROW(read_all(*stream, 1 << 20), Error);
}

}  // namespace
}  // namespace mixtune
