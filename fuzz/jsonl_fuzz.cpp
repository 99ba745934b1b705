// The reader of data files: whatever a file holds, it is read or refused with an Error that names a line.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/formats.h"
#include "data/jsonl.h"

namespace {

using namespace mixtune;

// A file that is only in memory, and has a path.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("jsonl_fuzz", 0)), path_("/proc/self/fd/" + std::to_string(fd_)) {}

  const std::string& fill(const uint8_t* data, size_t size) {
    MT_CHECK(ftruncate(fd_, 0) == 0);
    MT_CHECK(pwrite(fd_, data, size, 0) == static_cast<ssize_t>(size));
    return path_;
  }

 private:
  int fd_;
  std::string path_;
};

template <class Action>
void may_refuse(Action action) {
  try {
    action();
  } catch (const UserError& error) {
    MT_CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
}

void read_as_every_format(const nlohmann::ordered_json& record, const std::string& where) {
  may_refuse([&] { detect_format(record, where); });
  for (const auto format : {DatasetFormat::kMessages, DatasetFormat::kInstruction, DatasetFormat::kPromptCompletion,
                            DatasetFormat::kText, DatasetFormat::kTokenized}) {
    may_refuse([&] {
      UnreadKeys unread;
      const Record parsed = parse_record(record, format, where, unread);
      if (const auto* documents = std::get_if<TokenizedRecord>(&parsed))
        for (const TokenSequence& tokens : *documents) MT_CHECK(tokens.ids.size() == tokens.labels.size());
    });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static MemoryFile file;
  const std::string& path = file.fill(data, size);
  may_refuse([&] {
    JsonlReader reader(path);
    for (nlohmann::ordered_json record; reader.next(record);) read_as_every_format(record, reader.where());
  });
  return 0;
}
