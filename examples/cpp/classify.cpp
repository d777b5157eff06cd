// A bundle's single file in C++:  classify cascade.onnx PHOTO.ppm...   (binary PPM: upright RGB, any size)
// One line of JSON per photo. Photos are decoded by whatever the program has; PPM keeps this example free of libraries.
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int main(int count, char** arguments) try {
  if (count < 3) return std::cerr << "usage: classify cascade.onnx PHOTO.ppm...\n", 2;
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);  // the optional inputs would be warned about
  Ort::Session session(env, arguments[1], Ort::SessionOptions());
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const char* inputs[] = {"image"};
  const char* outputs[] = {"answer", "confidence", "reason"};  // indices of `answers` and `reasons` in the metadata
  int failed = 0;
  for (int i = 2; i < count; i++) {
    std::ifstream file(arguments[i], std::ios::binary);
    std::string magic;
    int64_t width = 0, height = 0, most = 0;
    file >> magic >> width >> height >> most;
    file.get();
    const bool usable = magic == "P6" && most == 255 && width > 0 && height > 0 && width <= 100000000 / height;
    std::vector<uint8_t> pixels(usable ? width * height * 3 : 0);
    if (!usable || !file.read(reinterpret_cast<char*>(pixels.data()), pixels.size())) {
      std::cout << "{\"error\": \"no binary PPM with 8 bits, or it ends early\"}\n";
      failed = 1;
      continue;
    }
    const int64_t shape[] = {height, width, 3};
    const auto image = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape, 3);
    const auto found = session.Run(Ort::RunOptions(), inputs, &image, 1, outputs, 3);
    std::cout << "{\"answer\": " << found[0].GetTensorData<int64_t>()[0]
              << ", \"confidence\": " << found[1].GetTensorData<float>()[0]
              << ", \"reason\": " << found[2].GetTensorData<int64_t>()[0] << "}\n";
  }
  return failed;
} catch (const Ort::Exception& error) {
  return std::cerr << error.what() << "\n", 2;
}
