// Any bytes as an event file, and as a message with true checksums: what is read are whole events, one after the other
// from the beginning.
#include <cstdlib>

#include "base/file.h"
#include "memory_file.h"
#include "metrics/event_file.h"

using namespace mixtune;

namespace {

void read_all(std::string_view bytes) {
  static MemoryFile memory;
  const InputFile file(memory.fill({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  EventReader reader(file);
  std::string whole;
  while (const std::optional<Event> event = reader.next()) {
    whole += framed(event->message);
    if (reader.end() != whole.size()) abort();
  }
  if (!bytes.starts_with(whole)) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  read_all(bytes);
  read_all(framed(bytes));
  return 0;
}
