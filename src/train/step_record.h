// What a step's result is in its record.
#pragma once

#include "data/loader.h"
#include "train/step_runner.h"

namespace mixtune {

// The numbers that its rows and its result have; those of the run, and of time, are left to the caller. What it points
// to is the result's.
StepRecord step_record(const Step& rows, const StepRunner::Result& result);

}  // namespace mixtune
