#include "data/foreign_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/error.h"

namespace mixtune {

namespace fs = std::filesystem;

namespace {

using std::string_view_literals::operator""sv;

constexpr size_t kLongestShown = 120;  // bytes of a path that a command repeats

bool ends_with(std::string_view name, std::string_view end) {
  return name.size() > end.size() && std::ranges::equal(name.substr(name.size() - end.size()), end, [](char a, char b) {
           return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b;
         });
}

std::string_view without(std::string_view name, std::string_view end) {
  return ends_with(name, end) ? name.substr(0, name.size() - end.size()) : name;
}

bool is_pasteable(std::string_view path) {
  return !path.empty() && path[0] != '-' && path.size() <= kLongestShown && is_utf8(path) &&
         std::ranges::none_of(path, [](char c) {
           return (c >= 0 && c < ' ') || c == '\x7F' || "'\"\\$`!*?[]{}()<>|&;#~"sv.find(c) != std::string_view::npos;
         });
}

// `path` in Python's quotes, within the shell's.
std::string python_word(std::string_view path) {
  return fmt::format("'{}'", is_pasteable(path) ? path : "FILE");
}

// The converted file's name: 'data/train.jsonl' for "data/train.parquet".
std::string converted(std::string_view path, std::string_view end) {
  return fmt::format("'{}.jsonl'", is_pasteable(path) ? without(path, end) : "FILE");
}

std::string python(std::string_view code) {
  return fmt::format("write it as JSONL: python -c \"{}\"", code);
}

ForeignData parquet(std::string_view path) {
  return {"is a Parquet file", python(fmt::format("import datasets; datasets.Dataset.from_parquet({}).to_json({})",
                                                  python_word(path), converted(path, ".parquet")))};
}

// The library datasets writes streams, whose magic is that of a message; other files are what Feather is.
ForeignData arrow_stream(std::string_view path) {
  return {"is an Arrow stream", python(fmt::format("import datasets; datasets.Dataset.from_file({}).to_json({})",
                                                   python_word(path), converted(path, ".arrow")))};
}
ForeignData arrow_file(std::string_view path) {
  return {"is an Arrow file",
          python(fmt::format("import datasets, pyarrow.feather as f; datasets.Dataset(f.read_table({})).to_json({})",
                             python_word(path), converted(path, ".arrow")))};
}

// Reads a table as text: pandas would make numbers of digits and nothing of 'NA'.
ForeignData table(std::string_view path, std::string_view end, std::string_view more) {
  std::string_view stem = without(without(without(path, ".gz"), ".zst"), end);
  return {fmt::format("is a table ({}), not JSONL", end.substr(1)),
          python(fmt::format("import pandas; pandas.read_csv({}, dtype=str, keep_default_na=False{}).to_json({}, "
                             "orient='records', lines=True, force_ascii=False)",
                             python_word(path), more, converted(stem, end)))};
}

struct Magic {
  std::string_view bytes, what, unpack;  // unpack: a command that writes the content to its standard output
};
constexpr std::array kMagics = {
    Magic{"PK\x03\x04", "is a zip archive", "unzip -p"},
    Magic{"\xFD\x37zXZ\0"sv, "is compressed with xz", "xz -dc"},
    Magic{"BZh", "is compressed with bzip2", "bzip2 -dc"},
    Magic{"\x04\x22\x4D\x18", "is compressed with lz4", "lz4 -dc"},
    Magic{"7z\xBC\xAF\x27\x1C", "is a 7z archive", "7z e -so"},
};

// The encoding, if not UTF-8, of text that begins with `head`: by its mark, or by JSON's first characters, all ASCII.
std::string_view wide_encoding(std::string_view head) {
  if (head.starts_with("\xFF\xFE\0\0"sv) || head.starts_with("\0\0\xFE\xFF"sv)) return "UTF-32";
  if (head.starts_with("\xFF\xFE"sv) || head.starts_with("\xFE\xFF"sv)) return "UTF-16";
  const auto units = [&](std::string_view unit) {  // '.': any byte but NUL
    if (head.size() < unit.size() * 2) return false;
    for (size_t i = 0; i < unit.size() * 2; ++i)
      if ((head[i] == '\0') != (unit[i % unit.size()] == '0')) return false;
    return true;
  };
  if (units(".000")) return "UTF-32LE";
  if (units("000.")) return "UTF-32BE";
  if (units(".0")) return "UTF-16LE";
  if (units("0.")) return "UTF-16BE";
  return "";
}

ForeignData wide_text(std::string_view path, std::string_view encoding, Compression compression) {
  const std::string file = shell_word(path);
  const std::string source = compression == Compression::kGzip   ? fmt::format("gzip -dc {} | ", file)
                             : compression == Compression::kZstd ? fmt::format("zstd -dc {} | ", file)
                                                                 : "";
  return {fmt::format("is {} text, not UTF-8", encoding),
          fmt::format("convert it: {}iconv -f {} -t UTF-8{} > utf8.jsonl", source, encoding,
                      source.empty() ? " " + file : "")};
}

bool begins_as_json(std::string_view head) {
  if (head.starts_with("\xEF\xBB\xBF")) head.remove_prefix(3);
  const size_t first = head.find_first_not_of(" \t\r\n");
  return first == head.npos || head[first] == '{' || head[first] == '[';
}

ForeignData hub_data(std::string_view name) {
  const std::string_view folder = name.substr(name.find('/') + 1);
  return {
      fmt::format("there is no file '{}' here", printable(name, 200)),
      fmt::format("if it is a data set of the hub: hf download {} --repo-type dataset --local-dir {}; or as JSONL: "
                  "python -c \"import datasets; datasets.load_dataset('{}', split='train').to_json('train.jsonl')\"",
                  name, folder, name)};
}

bool is_hub_word(std::string_view name) {
  return name.size() <= kLongestShown && std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || "-_./"sv.find(c) < 4;
         });
}

// The name on the hub in an address of a data set there, or "".
std::string_view hub_name_of(std::string_view address) {
  for (const std::string_view start : {"https://huggingface.co/datasets/"sv, "hf://datasets/"sv}) {
    if (!address.starts_with(start)) continue;
    const std::string_view rest = address.substr(start.size());
    const size_t slash = rest.find('/');
    if (slash == rest.npos || rest.find("/resolve/") != rest.npos) return "";
    const std::string_view name = rest.substr(0, std::min(rest.find('/', slash + 1), rest.find('@')));
    return is_hub_word(name) ? name : "";
  }
  return "";
}

// Which kind of data in a folder to name.
std::string most_readable_end(const std::string& folder) {
  constexpr std::array kEnds = {".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".parquet"};
  size_t best = kEnds.size();
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    for (size_t i = 0; i < best; ++i)
      if (ends_with(entry.path().filename().native(), kEnds[i])) best = i;
  return best == kEnds.size() ? kEnds[0] : kEnds[best];
}

bool has_data_end(std::string_view path) {
  constexpr std::array kEnds = {".jsonl",   ".ndjson", ".json", ".gz",  ".zst", ".csv", ".tsv",
                                ".parquet", ".arrow",  ".txt",  ".bin", ".idx", ".zip"};
  return std::ranges::any_of(kEnds, [&](const char* end) { return ends_with(path, end); });
}

}  // namespace

std::string shell_word(std::string_view path) {
  if (!is_pasteable(path)) return "FILE";
  return path.find(' ') == path.npos ? std::string(path) : fmt::format("'{}'", path);
}

bool looks_like_hub_name(std::string_view name) {
  const size_t slash = name.find('/');
  std::error_code error;
  return slash != name.npos && slash > 0 && name[0] != '.' && name.find('/', slash + 1) == name.npos &&
         slash + 1 < name.size() && !fs::is_directory(name.substr(0, slash), error);
}

std::optional<ForeignData> foreign_content(std::string_view path, std::string_view head, Compression compression) {
  if (head.starts_with("PAR1")) return parquet(path);
  if (head.starts_with("ARROW1")) return arrow_file(path);
  if (head.starts_with("\xFF\xFF\xFF\xFF")) return arrow_stream(path);
  for (const Magic& magic : kMagics)
    if (head.starts_with(magic.bytes))
      return ForeignData{std::string(magic.what),
                         fmt::format("unpack it: {} {} > data.jsonl", magic.unpack, shell_word(path))};
  if (head.size() > 262 && head.substr(257, 5) == "ustar")
    return ForeignData{"is a tar archive", fmt::format("unpack it: tar -xf {}", shell_word(path))};
  if (const std::string_view encoding = wide_encoding(head); !encoding.empty())
    return wide_text(path, encoding, compression);
  if (begins_as_json(head)) return std::nullopt;
  const std::string_view name = without(without(path, ".gz"), ".zst");
  if (ends_with(name, ".csv")) return table(path, ".csv", "");
  if (ends_with(name, ".tsv")) return table(path, ".tsv", ", sep='\\t'");
  if (ends_with(name, ".txt"))
    return ForeignData{"is plain text, not JSONL",
                       fmt::format("make each line a record: jq -cR '{{text: .}}' {} > data.jsonl", shell_word(path))};
  return std::nullopt;
}

std::optional<ForeignData> foreign_path(std::string_view path) {
  const size_t scheme = path.find("://");
  if (scheme == path.npos) {
    if (looks_like_hub_name(path) && is_hub_word(path) && !has_data_end(path)) return hub_data(path);
    return std::nullopt;
  }
  const std::string_view hub = hub_name_of(path), kind = path.substr(0, scheme);
  const std::string what = fmt::format("'{}' is an address, and files are local", printable(path, 200));
  if (!hub.empty()) return ForeignData{what, hub_data(hub).mend};
  const std::string_view fetch = kind == "http" || kind == "https" ? "curl -fLO URL"
                                 : kind == "s3"                    ? "aws s3 cp URL ."
                                 : kind == "gs"                    ? "gcloud storage cp URL ."
                                 : kind == "hf" ? "hf download NAME --repo-type dataset --local-dir ."
                                                : "";
  if (fetch.empty()) return ForeignData{what, "fetch it, and name the file"};
  std::string command(fetch);
  if (const size_t at = command.find("URL"); at != command.npos && is_pasteable(path)) command.replace(at, 3, path);
  return ForeignData{what, fmt::format("fetch it first: {}", command)};
}

ForeignData foreign_data_folder(const std::string& path) {
  const auto has = [&](const char* name) {
    std::error_code error;
    return fs::exists(fs::path(path) / name, error);
  };
  const auto load = [&](std::string_view part, std::string_view to) {
    return python(
        fmt::format("import datasets; datasets.load_from_disk({}){}.to_json('{}')", python_word(path), part, to));
  };
  if (has("dataset_dict.json"))
    return {"is a folder of the library datasets, with several parts", load("['train']", "train.jsonl")};
  if (has("state.json") && has("dataset_info.json"))
    return {"is a folder of the library datasets", load("", "data.jsonl")};
  const std::string_view slash = path.ends_with('/') ? "" : "/";
  const std::string end = most_readable_end(path);
  if (end == ".parquet")
    return {"is a folder of Parquet files",
            python(fmt::format("import datasets; datasets.load_dataset('parquet', data_files='{}{}*.parquet', "
                               "split='train').to_json('train.jsonl')",
                               is_pasteable(path) ? path : "FOLDER", slash))};
  return {"is a folder", fmt::format("name its files by a pattern: '{}{}*{}'", printable(path, 200), slash, end)};
}

}  // namespace mixtune
