#include "train/loop.h"

#include "train/trainer.h"

namespace mixtune {

void train(const Config& config) {
  Trainer trainer(config);
  trainer.open_output();
  try {
    for (int64_t step = 1; step <= trainer.total_steps(); ++step) {
      trainer.report(trainer.step(step));
      if (trainer.evaluation_due(step)) trainer.report(trainer.evaluate(step));
      if (trainer.save_due(step)) trainer.save(step);
    }
    trainer.finish();
  } catch (const UserError& error) {
    throw Error("", error.what(), "");  // found after the first step: no longer what exit code 2 means
  }
}

}  // namespace mixtune
