#include "data/file_notes.h"

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

void FileNotes::add(const FileNotes& of_record) {
  unread.add(of_record.unread);
  if (specials.count == 0) specials.first = of_record.specials.first;
  specials.count += of_record.specials.count;
  records_with_specials += of_record.specials.count > 0;
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
