// open_documents: the Documents of what a config names as data, read in place, from the cache, or loaded.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "config/config.h"
#include "data/documents.h"
#include "data/text_encoder.h"

namespace mixtune {

// Whether documents are kept for other runs and ranks: `data_cache` says so.
bool caches_documents(const Config& config);

// The documents of `datasets`, whose paths are files, as config.data says. A single indexed data set is read where it
// lies. All else is tokenised once and kept in the cache; where that is off or cannot be written, this process loads it
// for itself. Logs what load_documents does, every time, and throws like it. `advanced` (may be empty) is called as
// long work goes on.
std::shared_ptr<const Documents> open_documents(std::span<const Dataset> datasets, const Config& config,
                                                const TextEncoder& encoder, int64_t vocab_size,
                                                const std::function<void()>& advanced = {});

}  // namespace mixtune
