#include "precision/recipe.h"

#include <utility>

#include "precision/plain_recipe.h"

namespace mixtune {

std::unique_ptr<Recipe> make_recipe(const RecipeOptions& options) {
  const bool codes = options.multiplies_codes && options.eight_bit == EightBitScaling::kBlock;
  std::unique_ptr<Recipe> recipe = !options.eight_bit ? std::make_unique<PlainRecipe>()
                                   : codes            ? make_coded_recipe(options)
                                                      : make_rounding_recipe(options);
  if (options.experts == ExpertsImplementation::kLoop) recipe = make_loop_recipe(std::move(recipe));
  return options.eight_bit ? make_watching_recipe(std::move(recipe), options) : std::move(recipe);
}

}  // namespace mixtune
