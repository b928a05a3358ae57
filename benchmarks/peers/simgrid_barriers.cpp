/* The barriers of simgrid_run.py in SimGrid's own language: the fastest that SimGrid offers for them.

   Usage: simgrid_barriers ROUNDS SECONDS..., one per worker; prints the simulated clock and the CPU seconds of the run.
   Build: g++ -O2 -std=c++17 simgrid_barriers.cpp -lsimgrid */

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include <simgrid/s4u.hpp>

namespace s4u = simgrid::s4u;

int main(int argc, char** argv)
{
  s4u::Engine engine(&argc, argv);
  const int rounds = std::atoi(argv[1]), workers = argc - 2;
  auto* zone = s4u::create_full_zone("zone");
  auto barrier = s4u::Barrier::create(workers);
  for (int i = 0; i < workers; i++) {
    auto* host = zone->create_host("host " + std::to_string(i), 1e9)->seal();
    const double flops = std::atof(argv[i + 2]) * 1e9;
    s4u::Actor::create("worker " + std::to_string(i), host, [=] {
      for (int round = 0; round < rounds; round++) {
        s4u::this_actor::execute(flops);
        barrier->wait();
      }
    });
  }
  zone->seal();
  const auto begin = std::clock();
  engine.run();
  const double taken = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  std::printf("%.17g %.9g\n", s4u::Engine::get_clock(), taken);
}
