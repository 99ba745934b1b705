// IndexedSink: puts documents into an indexed data set (data/indexed_files.h).
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "base/error.h"
#include "data/document_sink.h"
#include "data/indexed_writer.h"

namespace mixtune {

// Thrown where a place cannot be written, whatever the data. Its text is an Error's line.
class CannotStore : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// All members throw CannotStore where the files cannot be written.
class IndexedSink : public DocumentSink {
 public:
  // The files are PREFIX.idx, .bin, .mask and .weights. None of them may exist.
  IndexedSink(const std::string& prefix, int64_t vocab_size);
  // Ends the data set: the files are on the disk.
  void finish();

 private:
  void begin_record() override;
  void add(const Added& document) override;

  std::unique_ptr<IndexedWriter> writer_;
  bool begun_ = false;
};

// Returns what `action` returns. An Error in it becomes a CannotStore.
template <class Action>
auto storing(const Action& action) {
  try {
    return action();
  } catch (const Error& error) {
    throw CannotStore(error.what());
  }
}

}  // namespace mixtune
