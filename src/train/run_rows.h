// The rows of a run, made of its data.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "config/config.h"
#include "data/plan.h"
#include "data/window_rows.h"
#include "train/run_data.h"

namespace mixtune {

// The rows of an optimizer step, on all ranks.
int64_t rows_per_step(const Config& config, int ranks);

// How documents are packed to train on them. Epochs are endless where max_steps is set.
PlanOptions plan_options(const Config& config, const RunData& data);

// How windows are cut for `rows`, or for num_train_epochs where there is no number.
WindowRowOptions window_options(const Config& config, std::optional<int64_t> rows);

// The rows that config trains on. Documents are packed by plan_options; windows are those of a run of max_steps of
// `rows_per_step`, or of num_train_epochs. `data` outlives them. Throws as RowSequence and WindowRows do.
std::unique_ptr<RowSource> training_rows(const Config& config, const RunData& data, int64_t rows_per_step);

// The rows of one of data.evaluations(): all of it in its order, once. Throws UserError where nothing of it is a
// target.
std::unique_ptr<RowSource> validation_rows(const Config& config, const RunData& data, const std::string& name);

}  // namespace mixtune
