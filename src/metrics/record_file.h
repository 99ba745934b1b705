// RecordFile: a file that grows by whole records, each in it when the call returns.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/file.h"

namespace mixtune {

// A record that cannot be written (a full disk) is missing whole: the first draws a warning, and finish says how many.
class RecordFile {
 public:
  // Makes the file, which must not exist, or (`goes_on`) adds to one. Throws UserError where that cannot be.
  explicit RecordFile(const std::string& path, bool goes_on = false);

  void write(std::string_view record);
  // Returns when the file is on the disk, or a warning has said that it may not be.
  void finish();

 private:
  void warn(int error, const char* consequence);

  std::string path_;
  Fd file_;
  int64_t size_ = 0;      // the size of the whole records
  int64_t lost_ = 0;      // records not written
  bool is_clean_ = true;  // the file ends with a whole record
  bool warned_ = false;
};

}  // namespace mixtune
