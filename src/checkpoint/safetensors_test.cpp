#include "checkpoint/safetensors.h"

#include <sys/stat.h>

#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

StoredTensors parse(const std::string& file) {
  return parse_safetensors(file, file.size(), "f.safetensors");
}

void expect_bad(const std::string& file, const std::vector<std::string>& fragments) {
  expect_user_error([&] { parse(file); }, fragments);
}

void expect_bad_header(std::string_view header, size_t size, const std::vector<std::string>& fragments) {
  expect_bad(raw_safetensors(header, size), fragments);
}

TEST(Safetensors, ReadsWhatTheFormatAllows) {
  const std::string header =
      R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"__metadata__":{"format":"pt","a":"b"},)"
      R"("a":{"shape":[],"data_offsets":[0,4],"dtype":"F32"},"none":{"dtype":"I64","shape":[0,5],"data_offsets":[16,16]},)"
      R"("q":{"dtype":"F4_NEW","shape":[3],"data_offsets":[16,18]}}   )";
  const StoredTensors tensors = parse(raw_safetensors(header, 18));
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors.at("b").shape, (Shape{2, 3}));
  EXPECT_EQ(tensors.at("b").dtype, DType::kBF16);
  EXPECT_EQ(tensors.at("b").begin, 8 + header.size() + 4);
  EXPECT_EQ(tensors.at("b").bytes(), 12u);
  EXPECT_EQ(tensors.at("a").shape.rank(), 0);
  EXPECT_EQ(tensors.at("q").dtype, std::nullopt);
  EXPECT_EQ(tensors.at("q").dtype_text, "F4_NEW");
}

TEST(Safetensors, Truncated) {
  const std::string whole = raw_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  EXPECT_EQ(parse(whole).size(), 1u);
  for (size_t size = 0; size < whole.size(); ++size)
    expect_bad(whole.substr(0, size), {"f.safetensors: ", "get it again"});
  expect_bad(whole + "x", {"1 bytes after its last tensor"});
}

TEST(Safetensors, OversizedHeader) {
  std::string file(64, '\0');
  const uint64_t length = 100'000'001;
  std::memcpy(file.data(), &length, sizeof(length));
  expect_bad(file, {"100000001 bytes"});
  expect_bad(std::string(64, '\xff'), {"18446744073709551615 bytes"});
  expect_bad("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {"Git LFS pointer", "git lfs pull"});
}

TEST(Safetensors, OffsetsLieInTheFileWithoutOverlapOrHole) {
  const auto two = [](const char* first, const char* second) {
    return fmt::format(R"({{"a":{{"dtype":"F32","shape":[2],"data_offsets":{}}},)"
                       R"("b":{{"dtype":"F32","shape":[2],"data_offsets":{}}}}})",
                       first, second);
  };
  EXPECT_EQ(parse(raw_safetensors(two("[8,16]", "[0,8]"), 16)).size(), 2u);
  expect_bad_header(two("[0,8]", "[4,12]"), 12, {"'b'", "overlaps"});
  expect_bad_header(two("[0,8]", "[0,8]"), 8, {"overlaps"});
  expect_bad_header(two("[0,8]", "[12,20]"), 20, {"'b'", "hole"});
  expect_bad_header(two("[4,12]", "[12,20]"), 20, {"'a'", "hole"});
  expect_bad_header(two("[0,8]", "[8,16]"), 12, {"'b'", "too short"});
  expect_bad_header(two("[0,8]", "[16,8]"), 16, {"'b'", "offsets"});
  expect_bad_header(two("[0,8]", "[18446744073709551608,18446744073709551615]"), 16, {"'b'", "offsets"});
  expect_bad_header(R"({"a":{"dtype":"ODD","shape":[2],"data_offsets":[8,0]}})", 8, {"'a'", "ends before it begins"});
}

TEST(Safetensors, SizeFollowsFromShapeAndType) {
  expect_bad_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, {"'a'", "F32 [2], 8 bytes"});
  const auto shape = [](const char* dims) {
    return fmt::format(R"({{"a":{{"dtype":"F32","shape":{},"data_offsets":[0,8]}}}})", dims);
  };
  expect_bad_header(shape("[4294967296,4294967296]"), 8, {"'a'", "impossible shape"});
  expect_bad_header(shape("[9223372036854775807]"), 8, {"'a'", "impossible shape"});
  expect_bad_header(shape("[18446744073709551615]"), 8, {"'a'", "impossible shape"});
  expect_bad_header(shape("[4611686018427387906]"), 8, {"'a'", "impossible shape"});  // * 4 wraps to 8
  expect_bad_header(shape("[-2]"), 8, {"'a'", "malformed"});
  expect_bad_header(shape("[2.0]"), 8, {"'a'", "malformed"});
  expect_bad_header(shape("[1e400]"), 8, {"not valid JSON"});
  // A byte of an unknown type holds at most eight elements: so counts of elements stay small.
  expect_bad_header(R"({"a":{"dtype":"ODD","shape":[9007199254740992,512],"data_offsets":[0,8]}})", 8,
                    {"'a'", "impossible shape"});
  expect_bad_header(shape("[1,1,1,1,2]"), 8, {"'a'", "more than 4 dimensions"});
}

TEST(Safetensors, MalformedHeader) {
  for (const char* header : {"",
                             "x",
                             "[]",
                             "3",
                             "null",
                             R"("text")",
                             "{",
                             R"({"a":1})",
                             R"({"a":[]})",
                             R"({"a":{}})",
                             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})",
                             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})",
                             R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})",
                             R"({"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}})",
                             R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})",
                             R"({"a":{"dtype":"F32","data_offsets":[0,4]}})",
                             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":"x"}})",
                             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":[]}})",
                             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} {})",
                             R"({"__metadata__":3})",
                             R"({"__metadata__":{"a":3}})",
                             R"({"__metadata__":{"a":["b"]}})",
                             "{\"\xff\":{}}"})
    expect_bad_header(header, 4, {"f.safetensors: "});
}

TEST(Safetensors, DuplicateKeys) {
  const char* entry = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  expect_bad_header(fmt::format(R"({{"a":{0},"a":{0}}})", entry), 4, {"'a'", "twice"});
  expect_bad_header(R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4, {"'shape'", "twice"});
  expect_bad_header(R"({"__metadata__":{"a":"b","a":"b"}})", 0, {"'a'", "twice"});
}

TEST(Safetensors, DeepNesting) {
  const std::string deep(1'000'000, '[');
  expect_bad_header(R"({"a":{"dtype":"F32","data_offsets":[0,4],"shape":)" + deep, 4, {"deeper than 3"});
  expect_bad_header(deep, 4, {"not a JSON object"});
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  expect_bad_header(objects, 4, {"malformed"});
}

TEST(Safetensors, NamesArePrintedSafely) {
  expect_bad_header(R"({"\u001b[2J\n":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", 8, {"\\x1b[2J\\x0a"});
}

TEST(Safetensors, OpensOnlyRegularFiles) {
  const TempFolder folder;
  expect_user_error([&] { SafetensorsFile(folder / "missing"); }, {"missing: cannot be opened: No such file"});
  expect_user_error([&] { SafetensorsFile(folder.path()); }, {"is a folder"});
  expect_user_error([] { SafetensorsFile("/dev/zero"); }, {"/dev/zero", "not a regular file"});
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_user_error([&] { SafetensorsFile(folder / "pipe"); }, {"not a regular file"});
  put(folder / "empty", "");
  expect_user_error([&] { SafetensorsFile(folder / "empty"); }, {"empty", "0 bytes"});
}

TEST(Safetensors, WritesWhatItReads) {
  const TempFolder folder;
  const std::vector<TensorEntry> entries = {{"x.weight", DType::kF32, {2, 2}}, {"y", DType::kBF16, {3}}};
  const std::vector<float> x = {1, 2, 3, 4};
  const std::vector<BF16> y = {to_bf16(5), to_bf16(6), to_bf16(7)};
  {
    SafetensorsWriter writer(folder / "f", entries);
    writer.write(1, 0, std::as_bytes(std::span(y)));
    writer.write(0, sizeof(float), std::as_bytes(std::span(x).subspan(1)));
    EXPECT_THROW(writer.finish(), std::logic_error);
    EXPECT_THROW(writer.write(0, 3 * sizeof(float), std::as_bytes(std::span(x).first(2))), std::logic_error);
    EXPECT_EQ(writer.missing(), sizeof(float));
    writer.write(0, 0, std::as_bytes(std::span(x).first(1)));
    EXPECT_THROW(writer.write(1, 0, std::as_bytes(std::span(y))), std::logic_error);
    writer.finish();
  }
  const std::string raw = get(folder / "f");
  uint64_t length = 0;
  std::memcpy(&length, raw.data(), sizeof(length));
  EXPECT_EQ(length % 8, 0u);
  EXPECT_TRUE(raw.substr(8).starts_with(R"({"__metadata__":{"format":"pt"},"x.weight":{"dtype":"F32","shape":[2,2],)"));

  const SafetensorsFile file(folder / "f");
  ASSERT_NE(file.find("x.weight"), nullptr);
  EXPECT_EQ(file.find("x"), nullptr);
  const auto stored = [&](const char* name) {
    return file.file().read(file.find(name)->begin, file.find(name)->bytes());
  };
  EXPECT_EQ(stored("x.weight"), std::string(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(x[0])));
  EXPECT_EQ(stored("y"), std::string(reinterpret_cast<const char*>(y.data()), y.size() * sizeof(y[0])));
}

TEST(Safetensors, NeverWritesOverAFile) {
  const TempFolder folder;
  put(folder / "f", "kept");
  EXPECT_THROW(SafetensorsWriter(folder / "f", {}), Error);
  EXPECT_EQ(get(folder / "f"), "kept");
  EXPECT_THROW(SafetensorsWriter(folder / "none/f", {}), Error);
}

}  // namespace
}  // namespace mixtune
