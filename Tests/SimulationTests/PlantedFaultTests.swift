import Base
import Testing

@Suite struct PlantedFaultTests {
    @Test func ordinaryBuildsCannotPlantFaults() {
        #expect(!PlantedFault.isCompiledIn)
        for fault in PlantedFault.allCases { #expect(!planted(fault)) }
    }
}
