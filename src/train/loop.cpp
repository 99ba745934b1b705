#include "train/loop.h"

#include "train/trainer.h"

namespace mixtune {

void train(const Config& config) {
  Trainer trainer(config);
  trainer.open_output();
  for (int64_t step = 1; step <= trainer.total_steps(); ++step) {
    trainer.report(trainer.step(step));
    if (trainer.evaluation_due(step)) trainer.report(trainer.evaluate(step));
    if (trainer.save_due(step)) trainer.save(step);
  }
  trainer.finish();
}

}  // namespace mixtune
