# Every third-party library that mixtune links (docs/design.md, section 10). scripts/packages installs them.
find_program(MIXTUNE_CCACHE ccache)
if(MIXTUNE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MIXTUNE_CCACHE})
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(dnnl REQUIRED)
find_package(Gloo REQUIRED)

find_path(SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h REQUIRED)
find_library(SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
add_library(sentencepiece INTERFACE)
target_include_directories(sentencepiece SYSTEM INTERFACE ${SENTENCEPIECE_INCLUDE_DIR})
target_link_libraries(sentencepiece INTERFACE ${SENTENCEPIECE_LIBRARY})

if(MIXTUNE_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
