// The chat templates of public checkpoints, which mixtune knows by their text. src/data/templates has them, and its
// SOURCES.md says where each is from.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config/config.h"
#include "data/text_templates.h"

namespace mixtune {

struct KnownTemplate {
  std::string_view file;  // in src/data/templates, without .jinja
  ChatTemplateName name;  // the template that it renders as
  TemplateVariant variant = {};
  std::string_view source() const;
};

std::span<const KnownTemplate> known_templates();

// The known template with the normal form of `source`, or null.
const KnownTemplate* find_known_template(std::string_view source);

// The first difference between `source` and the known template that is most like it: "it has "..." where chatml (FILE)
// has "..."".
std::string nearest_known_template(std::string_view source);

// The Jinja text for a checkpoint that was trained with this template, and had none of its own.
std::string_view source_to_save(ChatTemplateName name, const TemplateVariant& variant);

}  // namespace mixtune
