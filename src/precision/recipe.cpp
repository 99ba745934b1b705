#include "precision/recipe.h"

#include <utility>

#include "precision/plain_recipe.h"

namespace mixtune {

std::unique_ptr<Recipe> make_recipe(const RecipeOptions& options) {
  std::unique_ptr<Recipe> recipe = options.eight_bit
                                       ? make_eight_bit_recipe(*options.eight_bit, options.power_of_two_scales)
                                       : std::make_unique<PlainRecipe>();
  if (options.experts == ExpertsImplementation::kGrouped) return recipe;
  return make_loop_recipe(std::move(recipe));
}

}  // namespace mixtune
