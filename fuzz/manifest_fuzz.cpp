// Any text as a manifest: refused with a UserError, or of a step, with files below the checkpoint's folder.
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "run/manifest.h"

using namespace mixtune;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const Manifest manifest = parse_manifest(text, "fuzz");
    if (manifest.step < 1 || manifest.format > Manifest::kFormat) abort();
    const std::filesystem::path folder = "/checkpoint";
    for (const auto& [name, file] : manifest.files) {
      const std::filesystem::path path = (folder / name).lexically_normal();
      if (path == folder || *path.lexically_relative(folder).begin() == "..") abort();
    }
    if (parse_manifest(format_manifest(manifest), "fuzz") != manifest) abort();
  } catch (const UserError&) {
  }
  return 0;
}
