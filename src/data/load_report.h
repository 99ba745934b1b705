// The log of a data set that has been loaded.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data/documents.h"

namespace mixtune {

struct LoadCounts {
  int64_t records = 0, truncated = 0, split = 0;
  int64_t dropped = 0;  // records and pieces without a target
};

// "a.jsonl and 2 more"
std::string list_names(std::span<const std::string> files);

// Logs one line of what was found and one of what had to be cut or dropped. Throws UserError where nothing is left.
void report_loaded(const std::string& name, const DocumentTotals& found, const LoadCounts& counts,
                   int64_t max_seq_length);

}  // namespace mixtune
