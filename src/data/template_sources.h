// The texts of src/data/templates, which the program contains.
#pragma once

#include <string_view>

namespace mixtune {

// The text of NAME.jinja; empty where there is none.
std::string_view template_source(std::string_view name);

}  // namespace mixtune
