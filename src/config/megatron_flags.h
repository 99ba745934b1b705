// The arguments of Megatron-LM: the one table of the hints for them, and of how --megatron_args takes each.
#pragma once

#include <string_view>
#include <vector>

#include "config/foreign.h"

namespace mixtune {

struct MegatronFlag {
  enum class Take : uint8_t {
    kRefused,   // whatever its value
    kKey,       // it is our key: foreign.key, or where that is empty the one that its hint names, or of its own name
    kNothing,   // a run needs not be told, whatever its value
    kSwitch,    // the same, of one that takes no value but true or false
    kOnly,      // nothing either, where its value is one of `values` ("a|b"); another is refused
    kShape,     // the model's config.json must have its value at the key `values`; at "!KEY" the opposite
    kCombined,  // by megatron_run.cpp, as it needs more than its value
  };

  ForeignKey foreign;  // tools 0: another table has the hint, or it is a key of ours
  Take take = Take::kRefused;
  std::string_view values = {};
};

// By the name with underscores; null: there is none.
const MegatronFlag* find_megatron_flag(std::string_view name);
std::vector<std::string_view> megatron_flag_names();

}  // namespace mixtune
