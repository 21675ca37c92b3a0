import Base
import Simulation
import Testing

@Suite struct CrashEnumerationTests {
    /// Every call point of every workload, with a reduced set of survivors; `simulate` does the full set.
    @Test(arguments: CrashEnumeration.Workload.allCases)
    func powerCutAtEveryCall(_ workload: CrashEnumeration.Workload) {
        let report = CrashEnumeration.run(workload, survivors: .reduced)
        print(report)
        #expect(report.callPoints > 200)
        #expect(report.images > report.callPoints)
        for failure in report.failures { Issue.record("\(failure)") }
    }

    @Test(arguments: CrashEnumeration.Workload.allCases)
    func failureOfEveryCall(_ workload: CrashEnumeration.Workload) {
        let report = CrashEnumeration.runFailures(workload)
        print(report)
        for failure in report.failures { Issue.record("\(failure)") }
    }
}
