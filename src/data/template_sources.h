// The texts of src/data/templates, part of the program.
#pragma once

#include <string_view>

namespace mixtune {

// Of NAME.jinja; empty where there is none.
std::string_view template_source(std::string_view name);

}  // namespace mixtune
