# CUDA: found, or done without. MIXTUNE_HAS_CUDA says which; layers then take their CUDA sources or their NO_CUDA stubs.
set(MIXTUNE_CUDA "auto" CACHE STRING "Build for GPUs: on, off, or auto (where a compiler and the headers are found)")
option(MIXTUNE_CUDA_PINNED "Build with what scripts/cuda --pinned fetched, whatever CUDA the machine has" OFF)
# The PTX of 80 serves GPUs newer than Hopper; 90a has none, its code runs on Hopper alone.
set(MIXTUNE_CUDA_ARCHITECTURES "80;90a-real" CACHE STRING "GPU architectures, as CUDA_ARCHITECTURES takes them")

set(MIXTUNE_HAS_CUDA OFF)
if(MIXTUNE_CUDA STREQUAL "off")
  set(reason "MIXTUNE_CUDA is off")
elseif(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR MIXTUNE_SANITIZE)
  set(reason "a build with sanitizers, or without GCC, has none")
else()
  include(cmake/find_cuda.cmake)
  if(MIXTUNE_CUDA_MISSING)
    list(JOIN MIXTUNE_CUDA_MISSING ", " reason)
    set(reason "scripts/cuda would fetch ${reason}")
  else()
    set(MIXTUNE_HAS_CUDA ON)
  endif()
endif()
if(NOT MIXTUNE_HAS_CUDA)
  if(MIXTUNE_CUDA STREQUAL "on")
    message(FATAL_ERROR "MIXTUNE_CUDA is on, and there is no CUDA: ${reason}")
  endif()
  message(STATUS "CUDA: none, the build is for CPUs alone (${reason})")
  return()
endif()

set(CMAKE_CUDA_COMPILER ${MIXTUNE_NVCC})
set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
set(CMAKE_CUDA_ARCHITECTURES ${MIXTUNE_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
if(MIXTUNE_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${MIXTUNE_CCACHE})
endif()
enable_language(CUDA)
# CMake 3.25 does not know this compiler's flag for C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)

# The runtime is linked into the program. The driver and the libraries are opened when it runs: a build looks for them
# beside the compiler and where scripts/cuda leaves them, too.
find_library(MIXTUNE_CUDART_STATIC cudart_static REQUIRED NO_DEFAULT_PATH
             PATHS ${MIXTUNE_CUDA_ROOT} PATH_SUFFIXES lib64 lib)
find_package(Threads REQUIRED)
set(MIXTUNE_CUDART ${MIXTUNE_CUDART_STATIC} Threads::Threads ${CMAKE_DL_LIBS} rt)
list(APPEND CMAKE_BUILD_RPATH ${MIXTUNE_CUDA_ROOT}/lib64 ${PROJECT_SOURCE_DIR}/.deps/libraries/nvidia/cu13/lib
     ${PROJECT_SOURCE_DIR}/.deps/libraries/nvidia/cudnn/lib ${PROJECT_SOURCE_DIR}/.deps/libraries/nvidia/nccl/lib)
message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER_VERSION} of ${MIXTUNE_CUDA_ROOT}, for ${MIXTUNE_CUDA_ARCHITECTURES}")
