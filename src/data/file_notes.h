// FileNotes: things a user should know of a file's records, which were read nevertheless.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/text_encoder.h"
#include "data/unread_keys.h"

namespace mixtune {

struct FileNotes {
  UnreadKeys unread;       // keys that the format does not read
  SpeltSpecials specials;  // special tokens that texts spell, and that remain text
  int64_t records_with_specials = 0;

  void add(const FileNotes& of_record);
  // Warns of each in a line, where it has any.
  void report(const std::string& file, std::string_view format) const;
};

}  // namespace mixtune
