#include "precision/recipe.h"

#include <utility>

#include "precision/plain_recipe.h"

namespace mixtune {

ScaleRule scale_rule(const RecipeOptions& options) {
  if (options.eight_bit == EightBitScaling::kMx) return ScaleRule::kMx;
  return options.power_of_two_scales ? ScaleRule::kPowerOfTwo : ScaleRule::kFp32;
}

std::unique_ptr<Recipe> make_recipe(const RecipeOptions& options) {
  MT_CHECK(!options.multiplies_codes || (options.eight_bit && options.eight_bit != EightBitScaling::kTensor));
  std::unique_ptr<Recipe> recipe = !options.eight_bit         ? std::make_unique<PlainRecipe>()
                                   : options.multiplies_codes ? make_coded_recipe(options)
                                                              : make_rounding_recipe(options);
  if (options.experts == ExpertsImplementation::kLoop) recipe = make_loop_recipe(std::move(recipe));
  return options.eight_bit ? make_watching_recipe(std::move(recipe), options) : std::move(recipe);
}

}  // namespace mixtune
