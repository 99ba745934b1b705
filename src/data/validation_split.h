// Which records of a data set are held out of training.
#pragma once

#include <memory>
#include <string>

#include "data/documents.h"

namespace mixtune {

struct Split {
  std::shared_ptr<const Documents> train, validation;  // null: there is no such part
};

// Takes a seeded share of the records, in percent and at least one, with all their documents, for validation: which
// they are depends on the seed and the number of records alone, not on how these were cut. Both parts are views of
// `all`, in its order. Throws UserError where one of the two would be empty.
Split split_validation(std::shared_ptr<const Documents> all, double percentage, uint64_t seed);

// Cuts the records, in their order, by Megatron's `split` (gpt_split.h), and says how many each part has in a line that
// begins with `name`. A part of weight 0 is null; that for a test has no use, and is left out. Throws UserError
// (`where`) where a part for training or validation has a weight and no target.
Split split_records(std::shared_ptr<const Documents> all, const std::string& split, const std::string& where,
                    const std::string& name);

}  // namespace mixtune
