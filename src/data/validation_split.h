// Which records of a data set are held out of training.
#pragma once

#include "data/documents.h"

namespace mixtune {

struct Split {
  Documents train, validation;
};

// Takes a seeded share of the records, in percent and at least one, with all their documents, for validation: which
// they are depends on the seed and the number of records alone, not on how these were cut. Both parts keep the order of
// `all`. Throws UserError where one of the two would be empty.
Split split_validation(const Documents& all, double percentage, uint64_t seed);

}  // namespace mixtune
