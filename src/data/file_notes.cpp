#include "data/file_notes.h"

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

void FileNotes::add(const FileNotes& more) {
  unread.add(more.unread);
  if (specials.count == 0) specials.first = more.specials.first;
  specials.count += more.specials.count;
  records_with_specials += more.specials.count > 0;
}

void FileNotes::report(const std::string& file, std::string_view format) const {
  if (!unread.empty()) log_warning("{}: format {} does not read the keys: {}", file, format, unread.text());
  if (specials.count > 0)
    log_warning(
        "{}: {} times in {} records, text spells a special token ({}), and stays text; 'parse_special_tokens: true' "
        "makes it that token",
        file, specials.count, records_with_specials, printable(specials.first));
}

}  // namespace mixtune
