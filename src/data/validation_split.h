// The split of a data set: which of its records are held out of training.
#pragma once

#include <memory>
#include <string>

#include "data/documents.h"

namespace mixtune {

struct Split {
  std::shared_ptr<const Documents> train, validation;  // null: the part does not exist
};

// Takes a seeded share of the records, in percent and at least one, with all their documents, for validation. The
// choice depends only on the seed and the number of records, not on how these were cut. Both parts are views of `all`,
// in its order. Throws UserError where one of the two would be empty.
Split split_validation(std::shared_ptr<const Documents> all, double percentage, uint64_t seed);

// Splits the records, in their order, by Megatron's `split` (gpt_split.h), and logs how many each part has in a line
// that begins with `name`. A part of weight 0 is null; that for a test has no use, and is left out. Throws UserError
// (`where`) where a part for training or validation has a weight and no target.
Split split_records(std::shared_ptr<const Documents> all, const std::string& split, const std::string& where,
                    const std::string& name);

}  // namespace mixtune
