#include "data/foreign_data.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "data/record_reader.h"
#include "data/test_compress.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using namespace std::string_literals;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string text_of(const std::optional<ForeignData>& foreign) {
  return foreign ? fmt::format("{}; {}", foreign->what, foreign->mend) : "";
}

std::string content(std::string_view path, std::string_view head, Compression compression = Compression::kNone) {
  return text_of(foreign_content(path, head, compression));
}

TEST(ForeignContent, TablesHaveTheCommandThatConvertsThem) {
  EXPECT_EQ(content("data/a b.parquet", "PAR1\x15\x04"),
            "is a Parquet file; write it as JSONL: python -c \"import datasets; "
            "datasets.Dataset.from_parquet('data/a b.parquet').to_json('data/a b.jsonl')\"");
  EXPECT_EQ(content("part", "PAR1"),
            "is a Parquet file; write it as JSONL: python -c \"import datasets; "
            "datasets.Dataset.from_parquet('part').to_json('part.jsonl')\"");
  EXPECT_EQ(content("x/data-00000-of-00001.arrow", "\xFF\xFF\xFF\xFF\x10\x02"),
            "is an Arrow stream; write it as JSONL: python -c \"import datasets; "
            "datasets.Dataset.from_file('x/data-00000-of-00001.arrow').to_json('x/data-00000-of-00001.jsonl')\"");
  EXPECT_EQ(content("x.arrow", "ARROW1\0\0"s),
            "is an Arrow file; write it as JSONL: python -c \"import datasets, pyarrow.feather as f; "
            "datasets.Dataset(f.read_table('x.arrow')).to_json('x.jsonl')\"");
  EXPECT_EQ(content("a.CSV", "instruction,output\n"),
            "is a table (csv), not JSONL; write it as JSONL: python -c \"import pandas; pandas.read_csv('a.CSV', "
            "dtype=str, keep_default_na=False).to_json('a.jsonl', orient='records', lines=True, force_ascii=False)\"");
  EXPECT_EQ(content("a.tsv.gz", "instruction\toutput\n", Compression::kGzip),
            "is a table (tsv), not JSONL; write it as JSONL: python -c \"import pandas; pandas.read_csv('a.tsv.gz', "
            "dtype=str, keep_default_na=False, sep='\\t').to_json('a.jsonl', orient='records', lines=True, "
            "force_ascii=False)\"");
  EXPECT_EQ(content("a.txt", "Once upon"),
            "is plain text, not JSONL; make each line a record: jq -cR '{text: .}' a.txt > data.jsonl");
}

TEST(ForeignContent, ArchivesHaveTheCommandThatUnpacksThem) {
  EXPECT_EQ(content("a.zip", "PK\x03\x04"), "is a zip archive; unpack it: unzip -p a.zip > data.jsonl");
  EXPECT_EQ(content("a b.xz", "\xFD\x37zXZ\0\0"s), "is compressed with xz; unpack it: xz -dc 'a b.xz' > data.jsonl");
  EXPECT_EQ(content("a.bz2", "BZh91AY"), "is compressed with bzip2; unpack it: bzip2 -dc a.bz2 > data.jsonl");
  EXPECT_THAT(content("a.lz4", "\x04\x22\x4D\x18"), EndsWith("lz4 -dc a.lz4 > data.jsonl"));
  EXPECT_THAT(content("a.7z", "7z\xBC\xAF\x27\x1C"), EndsWith("7z e -so a.7z > data.jsonl"));
  EXPECT_EQ(content("a.tar.gz", "a.jsonl" + std::string(250, '\0') + "ustar\0"s + std::string(200, '\0')),
            "is a tar archive; unpack it: tar -xf a.tar.gz");
}

TEST(ForeignContent, JsonIsTakenWhateverItsName) {
  for (const char* name : {"a.csv", "a.tsv.gz", "a.txt", "a.parquet", "a.arrow", "a.zip", "a"})
    for (const char* head : {"{\"a\":1}", "[{", " \r\n\t[", "\xEF\xBB\xBF{", "", "\n\n"})
      EXPECT_EQ(content(name, head), "") << name << " " << head;
  EXPECT_EQ(content("a.jsonl", "not JSON at all"), "") << "its first line says so";
}

// `text` in units of `size` bytes, little- or big-endian.
std::string widen(std::string_view text, size_t size, bool little) {
  std::string out;
  for (const char c : text) {
    const std::string zeros(size - 1, '\0');
    out += little ? c + zeros : zeros + c;
  }
  return out;
}

TEST(ForeignContent, WideTextIsNamedWithItsEncoding) {
  for (const char* text : {"{\"a\":1}\n", "[{\"a\":1}]", "\r\n{}", "{}"}) {
    EXPECT_THAT(content("a.jsonl", "\xFF\xFE" + widen(text, 2, true)), StartsWith("is UTF-16 text, not UTF-8"));
    EXPECT_THAT(content("a.jsonl", "\xFE\xFF" + widen(text, 2, false)), StartsWith("is UTF-16 text, not UTF-8"));
    EXPECT_THAT(content("a.jsonl", "\xFF\xFE\0\0"s + widen(text, 4, true)), StartsWith("is UTF-32 text, not UTF-8"));
    EXPECT_THAT(content("a.jsonl", "\0\0\xFE\xFF"s + widen(text, 4, false)), StartsWith("is UTF-32 text, not UTF-8"));
    EXPECT_EQ(content("a.jsonl", widen(text, 2, true)),
              "is UTF-16LE text, not UTF-8; convert it: iconv -f UTF-16LE -t UTF-8 a.jsonl > utf8.jsonl");
    EXPECT_THAT(content("a.jsonl", widen(text, 2, false)), HasSubstr("iconv -f UTF-16BE -t"));
    EXPECT_THAT(content("a.jsonl", widen(text, 4, true)), HasSubstr("iconv -f UTF-32LE -t"));
    EXPECT_THAT(content("a.jsonl", widen(text, 4, false)), HasSubstr("iconv -f UTF-32BE -t"));
  }
  EXPECT_THAT(content("a.csv", widen("a,b\n", 2, true)), StartsWith("is UTF-16LE text"));
  EXPECT_THAT(content("a.gz", widen("{}", 2, true), Compression::kGzip),
              EndsWith("gzip -dc a.gz | iconv -f UTF-16LE -t UTF-8 > utf8.jsonl"));
  EXPECT_THAT(content("a.zst", widen("{}", 2, true), Compression::kZstd),
              EndsWith("zstd -dc a.zst | iconv -f UTF-16LE -t UTF-8 > utf8.jsonl"));
}

TEST(ForeignContent, ZerosOfACrashAreNoEncoding) {
  for (const std::string& head :
       {std::string(100, '\0'), "{" + std::string(100, '\0'), "{}\n\0"s, "{}\0\0\0{}"s, "{\0"s})
    EXPECT_EQ(content("a.jsonl", head), "");
}

TEST(ForeignContent, TheReaderRefusesIt) {
  const TestFolder folder;
  const std::string wide = "\xFF\xFE" + widen("{\"a\":1}\n", 2, true), path = folder.path("a.jsonl");
  for (const std::string& bytes : {wide, gzip(wide), zstd(wide)}) {
    folder.write("a.jsonl", bytes);
    EXPECT_THAT(user_error([&] { RecordReader reader(path); }), StartsWith(path + ": is UTF-16 text, not UTF-8; "));
  }
  folder.write("a.jsonl", "PAR1");
  EXPECT_THAT(user_error([&] { RecordReader reader(path); }), StartsWith(path + ": is a Parquet file; "));
}

TEST(ForeignPath, AddressesAndNamesOnTheHub) {
  EXPECT_EQ(
      text_of(foreign_path("https://a.org/b.jsonl")),
      "'https://a.org/b.jsonl' is an address, and files are local; fetch it first: curl -fLO https://a.org/b.jsonl");
  EXPECT_THAT(text_of(foreign_path("s3://b/x.jsonl")), EndsWith("fetch it first: aws s3 cp s3://b/x.jsonl ."));
  EXPECT_THAT(text_of(foreign_path("gs://b/x.jsonl")), EndsWith("gcloud storage cp gs://b/x.jsonl ."));
  EXPECT_THAT(text_of(foreign_path("ftp://b/x")), EndsWith("fetch it, and name the file"));
  EXPECT_EQ(text_of(foreign_path("tatsu-lab/alpaca")),
            "there is no file 'tatsu-lab/alpaca' here; if it is a data set of the hub: hf download tatsu-lab/alpaca "
            "--repo-type dataset --local-dir alpaca; or as JSONL: python -c \"import datasets; "
            "datasets.load_dataset('tatsu-lab/alpaca', split='train').to_json('train.jsonl')\"");
  for (const char* address : {"https://huggingface.co/datasets/a/b", "https://huggingface.co/datasets/a/b/tree/main",
                              "hf://datasets/a/b/x.parquet", "hf://datasets/a/b@main/x.parquet"})
    EXPECT_THAT(text_of(foreign_path(address)), HasSubstr("hf download a/b --repo-type dataset --local-dir b; "))
        << address;
  EXPECT_THAT(text_of(foreign_path("https://huggingface.co/datasets/a/b/resolve/main/x.jsonl")),
              HasSubstr("curl -fLO https://huggingface.co/datasets/a/b/resolve/main/x.jsonl"));
  for (const char* slip :
       {"train.jsonl", "data/train.jsonl", "data/train.json.gz", "./a", "../a/b", "a/b/c", "/a/b", "a/", ""})
    EXPECT_EQ(text_of(foreign_path(slip)), "") << slip;
}

TEST(ForeignPath, NothingThatAShellWouldRunIsRepeated) {
  for (const char* path :
       {"$(reboot).parquet", "a';reboot;'.parquet", "a\"`b`.parquet", "-rf.parquet", "a\nb.parquet"}) {
    EXPECT_THAT(content(path, "PAR1"), HasSubstr("from_parquet('FILE').to_json('FILE.jsonl')")) << path;
    EXPECT_EQ(shell_word(path), "FILE") << path;
  }
  EXPECT_THAT(text_of(foreign_path("https://a/$(reboot)")), EndsWith("curl -fLO URL"));
  EXPECT_EQ(text_of(foreign_path("a/$(reboot)")), "");
  EXPECT_EQ(shell_word("d\xC3\xA9j\xC3\xA0 vu.jsonl"), "'d\xC3\xA9j\xC3\xA0 vu.jsonl'");
}

class ForeignFolder : public testing::Test {
 protected:
  std::string account() const {
    const std::string text = text_of(foreign_data_folder(folder_.path()));
    EXPECT_EQ(text.find('\n'), text.npos);
    return text;
  }
  TestFolder folder_;
};

TEST_F(ForeignFolder, OfTheLibraryDatasets) {
  folder_.write("dataset_info.json", "{}");
  folder_.write("state.json", "{}");
  EXPECT_EQ(account(),
            "is a folder of the library datasets; write it as JSONL: python -c \"import datasets; "
            "datasets.load_from_disk('" +
                folder_.path() + "').to_json('data.jsonl')\"");
  folder_.write("dataset_dict.json", "{}");
  EXPECT_THAT(account(), HasSubstr("')['train'].to_json('train.jsonl')"));
}

TEST_F(ForeignFolder, OfFilesIsNamedByAPattern) {
  const std::string start = "is a folder; name its files by a pattern: '" + folder_.path();
  EXPECT_EQ(account(), start + "*.jsonl'");
  folder_.write("x.parquet", "");
  EXPECT_THAT(account(),
              HasSubstr("load_dataset('parquet', data_files='" + folder_.path() + "*.parquet', split='train')"));
  folder_.write("x.json", "");
  EXPECT_EQ(account(), start + "*.json'");
  folder_.write("x.jsonl.gz", "");
  EXPECT_EQ(account(), start + "*.jsonl.gz'");
  folder_.write("x.jsonl", "");
  EXPECT_EQ(account(), start + "*.jsonl'");
}

}  // namespace
}  // namespace mixtune
