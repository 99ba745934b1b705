// The cache of tokenised data: FOLDER/KEY holds an indexed data set (data/indexed_files.h) and what was logged when it
// was made. An entry appears whole, under a lock, and never changes; a damaged one is made again.
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
  int64_t max_seq_length = 0;      // no document is longer
  std::function<void()> advanced;  // called as the work goes on, here or in the process that is waited for
};

// The documents of an entry. Where it is not there, it is made first, by this process or by another that has begun to.
// Logs what was logged when they were made. Removes entries that no run has opened for 30 days. Throws CannotStore
// where the folder cannot be written or made, and what `load` throws.
std::shared_ptr<const Documents> cached_documents(const std::string& folder, const std::string& key,
                                                  const DataSource& source);

// The documents without a cache: in memory, or beyond 2^25 tokens in files of the system's temporary folder. Their
// names go once they are written: a kill before that leaves them.
std::shared_ptr<const Documents> uncached_documents(const DataSource& source);

}  // namespace mixtune
