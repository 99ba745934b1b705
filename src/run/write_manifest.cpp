#include "run/write_manifest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <sstream>

#include "base/output_file.h"

namespace mixtune {

void write_manifest(Ctx& ctx, const std::string& folder, Manifest manifest, Communicator& world,
                    const std::function<void()>& advanced) {
  const std::string listed =
      gather_texts(ctx, world, "files of the checkpoint",
                   world.rank() == 0 ? fmt::format("{}", fmt::join(files_below(folder), "\n")) : std::string())[0];
  std::istringstream names(listed);
  Manifest own{.step = manifest.step};
  std::string name;
  for (int i = 0; std::getline(names, name); ++i)
    if (i % world.size() == world.rank()) own.files[name] = digest_file(folder + "/" + name, advanced);
  for (const std::string& text : gather_texts(ctx, world, "digests of the checkpoint's files", format_manifest(own)))
    manifest.files.merge(parse_manifest(text, "digests of the checkpoint's files").files);
  manifest.mixtune = MIXTUNE_VERSION;
  if (world.rank() == 0) write_file(folder + "/" + kManifestFile, format_manifest(manifest));
}

}  // namespace mixtune
