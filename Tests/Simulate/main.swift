import Simulation

// `quarterdeck simulate` without the rest of quarterdeck: builds in a minute.
SimulateCommand.main()
