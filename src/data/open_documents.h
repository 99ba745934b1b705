// From what a config names as data to Documents: in place, from the cache, or loaded.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "config/config.h"
#include "data/documents.h"
#include "data/text_encoder.h"

namespace mixtune {

// Whether documents are kept for other runs and ranks, as `data_cache` says.
bool caches_documents(const Config& config);

// The documents of `datasets`, whose paths are files, as config.data says. One indexed data set is read where it lies;
// all else is tokenised once and kept in the cache, or, where that is off or cannot be written, loaded by this process
// for itself. Logs what load_documents does, every time, and throws like it. `advanced` (may be none) is called as long
// work goes on.
std::shared_ptr<const Documents> open_documents(std::span<const Dataset> datasets, const Config& config,
                                                const TextEncoder& encoder, int64_t vocab_size,
                                                const std::function<void()>& advanced = {});

}  // namespace mixtune
