// The reader of data files: whatever a file holds, it is read or refused with an Error that names a line.
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/json_value.h"
#include "data/formats.h"
#include "data/record_reader.h"
#include "memory_file.h"

namespace {

using namespace mixtune;

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
  const std::string& path = file.fill({data, size});
  may_refuse([&] {
    RecordReader reader(path);
    for (nlohmann::ordered_json record; reader.next(record);) read_as_every_format(record, reader.where());
  });
  return 0;
}
