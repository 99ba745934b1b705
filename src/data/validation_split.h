// Which records of a data set are held out of training.
#pragma once

#include <memory>

#include "data/documents.h"

namespace mixtune {

struct Split {
  std::shared_ptr<const Documents> train, validation;
};

// Takes a seeded share of the records, in percent and at least one, with all their documents, for validation: which
// they are depends on the seed and the number of records alone, not on how these were cut. Both parts are views of
// `all`, in its order. Throws UserError where one of the two would be empty.
Split split_validation(std::shared_ptr<const Documents> all, double percentage, uint64_t seed);

}  // namespace mixtune
