// The cache of tokenised data: FOLDER/KEY is an indexed data set (data/indexed_files.h) and what was logged when it was
// made. An entry appears whole, under a lock, and never changes; one that is damaged is made again.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "data/document_sink.h"
#include "data/documents.h"

namespace mixtune {

struct DataSource {
  std::string name;                         // for messages
  std::function<void(DocumentSink&)> load;  // gives all documents, and logs what it has to say
  int64_t vocab_size = 0;
  int64_t max_seq_length = 0;      // that no document exceeds
  std::function<void()> advanced;  // called as the work goes on, in this process or in that which is waited for
};

// The documents of an entry, made first where it is not there: by this process, or by another that has begun to. Logs
// what was logged when they were made. Entries that no run has opened for 30 days are removed. Throws CannotStore where
// the folder cannot be written or made, and what `load` throws.
std::shared_ptr<const Documents> cached_documents(const std::string& folder, const std::string& key,
                                                  const DataSource& source);

// The same without a cache: in memory, or beyond 2^25 tokens in files of the system's temporary folder, whose
// names go once they are written: a kill before that leaves them.
std::shared_ptr<const Documents> uncached_documents(const DataSource& source);

}  // namespace mixtune
