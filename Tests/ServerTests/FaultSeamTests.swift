import Base
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOPosix
import Testing
@testable import Server

@Suite struct FaultSeamTests {
    // MARK: Plan

    @Test func planKeepsOnlyWhatIsNotSoundAndSurvivesJSON() throws {
        var plan = FaultPlan()
        plan[from: 9, to: .max].delayMicroseconds = 40_000
        plan[from: 1, to: 2].isCut = true
        plan[from: 3, to: 3].isCut = true
        plan[disk: 7].failure = .full
        plan[clock: 7].driftPartsPerMillion = -50
        #expect(plan.links.map(\.from) == [1, 9])
        let again = try JSONDecoder().decode(FaultPlan.self, from: JSONEncoder().encode(plan))
        #expect(again == plan)
        #expect(again[from: 9, to: .max].delayMicroseconds == 40_000)
        plan[from: 9, to: .max] = LinkTreatment()
        plan[from: 1, to: 2].isCut = false
        plan[disk: 7] = DiskTreatment()
        plan[clock: 7].driftPartsPerMillion = 0
        #expect(plan.isEmpty && plan == FaultPlan())
    }

    @Test func nodeIsCutOffWhenNoLinkIsLeftInEitherDirection() {
        var plan = FaultPlan()
        for (from, to) in [(1, 2), (2, 1), (1, 3)] as [(UInt64, UInt64)] { plan[from: from, to: to].isCut = true }
        #expect(!plan.isCutOff(1, among: [1, 2, 3]))
        plan[from: 3, to: 1].isCut = true
        #expect(plan.isCutOff(1, among: [1, 2, 3]))
        #expect(!plan.isCutOff(2, among: [1, 2, 3]))
        #expect(!plan.isCutOff(1, among: [1]))
    }

    @Test func linksTellOfChangesOnly() {
        let links = FaultyLinks()
        let changes = NIOLockedValueBox(0)
        links.observe { changes.withLockedValue { $0 += 1 } }
        var plan = FaultPlan()
        plan[from: 1, to: 2].isCut = true
        for _ in 0..<2 { links.obey(plan) }
        #expect(links.isCut(from: MemberID(1), to: MemberID(2)) && !links.isCut(from: MemberID(2), to: MemberID(1)))
        plan[disk: 1].isStuck = true
        links.obey(plan)
        #expect(changes.withLockedValue { $0 } == 1)
        links.obey(FaultPlan())
        #expect(links.treatment(from: MemberID(1), to: MemberID(2)) == nil)
        #expect(changes.withLockedValue { $0 } == 2)
    }

    @Test func anOrderMayNameALinkTwiceAndFiguresThatNoClockHolds() throws {
        func link(_ from: Int, _ to: Int, _ fields: String) -> String {
            "{\"from\":\(from),\"to\":\(to),\"treatment\":{\"isCut\":false,\"delayMicroseconds\":0,\"jitterMicroseconds\":0,\"lossShare\":0,\"duplicateShare\":0\(fields)}}"
        }
        let clock = "{\"node\":1,\"treatment\":{\"offsetMilliseconds\":\(Int64.min),\"leapMilliseconds\":\(Int64.max),\"driftPartsPerMillion\":\(Int64.max)}}"
        let disk = "{\"node\":1,\"treatment\":{\"syncDelayMicroseconds\":\(Int64.max),\"isStuck\":false}}"
        let text = "{\"links\":[\(link(2, 1, "")),\(link(1, 2, ",\"bytesPerSecond\":5")),\(link(1, 2, ",\"bytesPerSecond\":\(Int64.min)"))],\"disks\":[\(disk),\(disk)],\"clocks\":[\(clock)]}"
        let plan = try JSONDecoder().decode(FaultPlan.self, from: Data(text.utf8))
        #expect(plan.links.count == 1 && plan.disks.count == 1 && plan.clocks.count == 1)
        #expect(plan[from: 1, to: 2].bytesPerSecond == 1)
        let base = ScriptedClock()
        let faults = NodeFaults(member: MemberID(1), clock: base)
        let group = MultiThreadedEventLoopGroup.singleton
        var environment = NodeEnvironment(clientGroup: group, replicaGroup: group, logger: Logger(label: "test"))
        faults.govern(&environment)
        faults.obey(plan)
        base.advance(1_000_000_000_000)
        // A clock that leaps by a century and runs eleven times too fast still only goes forward.
        let before = environment.clock.now()
        base.advance(1_000)
        #expect(environment.clock.now() > before)
        _ = (environment.clock.wall(), environment.clock.wallMicroseconds(), environment.clock.realTime(for: TimeSpan(nanoseconds: .max)))
        var slow = FaultPlan()
        slow[clock: 1].driftPartsPerMillion = .min
        faults.obey(slow)
        #expect(environment.clock.realTime(for: TimeSpan(nanoseconds: .max)).nanoseconds == .max)
        var generator = SeededGenerator(seed: 1)
        var line = DelayLine<Int>()
        var treatment = LinkTreatment()
        treatment.delayMicroseconds = .max
        treatment.jitterMicroseconds = .max
        treatment.lossShare = .nan
        line.change(to: treatment.bounded, at: 0, using: &generator)
        #expect(line.put(1, bytes: 1, at: 1 << 60, using: &generator) && line.nextDue! > 1 << 60)
    }

    // MARK: Delay line

    private func treatment(_ change: (inout LinkTreatment) -> Void) -> LinkTreatment {
        var treatment = LinkTreatment()
        change(&treatment)
        return treatment
    }

    @Test func jitterNeverReorders() {
        var generator = SeededGenerator(seed: 1)
        var line = DelayLine<Int>()
        line.change(to: treatment {
            $0.delayMicroseconds = 10_000
            $0.jitterMicroseconds = 10_000
        }, at: 0, using: &generator)
        for number in 0..<200 { #expect(line.put(number, bytes: 1, at: Int64(number) * 1_000_000, using: &generator)) }
        var taken: [Int] = []
        var now: Int64 = 0
        while let due = line.nextDue {
            #expect(due >= now && due <= 199_000_000 + 20_000_000)
            now = due
            #expect(line.take(at: now - 1) == nil)
            taken.append(line.take(at: now)!)
        }
        #expect(taken == Array(0..<200))
        #expect(line.heldBytes == 0)
    }

    @Test func rateSendsOneAfterTheOtherAndDropsWhatWouldWaitTooLong() {
        var generator = SeededGenerator(seed: 1)
        var line = DelayLine<Int>()
        line.change(to: treatment { $0.bytesPerSecond = 1_000 }, at: 0, using: &generator)
        // Whatever its size, the first one goes.
        #expect(line.put(0, bytes: 1_500, at: 0, using: &generator))
        #expect(line.nextDue == 1_500_000_000)
        #expect(!line.put(1, bytes: 1, at: 0, using: &generator))
        #expect(line.put(2, bytes: 500, at: 600_000_000, using: &generator))
        #expect(line.take(at: 1_500_000_000) == 0)
        #expect(line.nextDue == 2_000_000_000)
    }

    @Test func healingReleasesAndCuttingDrops() {
        var generator = SeededGenerator(seed: 1)
        var line = DelayLine<Int>()
        line.change(to: treatment { $0.delayMicroseconds = 1_000_000 }, at: 0, using: &generator)
        for number in 0..<3 { _ = line.put(number, bytes: 1, at: Int64(number), using: &generator) }
        // Half the delay: as if it had been so when they were sent.
        line.change(to: treatment { $0.delayMicroseconds = 500_000 }, at: 100, using: &generator)
        #expect(line.nextDue == 500_000_000)
        line.change(to: LinkTreatment(), at: 100, using: &generator)
        #expect([line.take(at: 100), line.take(at: 100), line.take(at: 100), line.take(at: 100)] == [0, 1, 2, nil])
        line.change(to: treatment { $0.delayMicroseconds = 1_000_000 }, at: 200, using: &generator)
        _ = line.put(3, bytes: 1, at: 200, using: &generator)
        line.change(to: treatment { $0.isCut = true }, at: 300, using: &generator)
        #expect(line.isEmpty && line.heldBytes == 0)
    }

    @Test func lossAndDuplicationFollowTheirSharesAndTheSeed() {
        let bad = treatment {
            $0.lossShare = 0.25
            $0.duplicateShare = 0.5
        }
        func draw(_ seed: UInt64) -> [Int] {
            var generator = SeededGenerator(seed: seed)
            return (0..<10_000).map { _ in bad.copies(using: &generator) }
        }
        let copies = draw(7)
        #expect(copies == draw(7) && copies != draw(8))
        #expect((2_300...2_700).contains(copies.filter { $0 == 0 }.count))
        #expect((3_500...4_000).contains(copies.filter { $0 == 2 }.count))
    }

    // MARK: Clock

    final class ScriptedClock: NodeClock {
        let milliseconds = NIOLockedValueBox<Int64>(1_000)
        func now() -> Instant { Instant(nanoseconds: milliseconds.withLockedValue { $0 } * 1_000_000) }
        func wall() -> WallTime { WallTime(milliseconds: milliseconds.withLockedValue { $0 } + 1_000_000) }
        func advance(_ by: Int64) { milliseconds.withLockedValue { $0 += by } }
    }

    @Test func clockLeapsOnceForwardAndItsTimersNeverGoBack() {
        let base = ScriptedClock()
        let clock = FaultyClock(base)
        let changes = NIOLockedValueBox(0)
        clock.observe { changes.withLockedValue { $0 += 1 } }
        var jump = ClockTreatment()
        jump.offsetMilliseconds = 5_000
        jump.leapMilliseconds = 5_000
        for _ in 0..<3 { clock.obey(jump) }
        #expect(changes.withLockedValue { $0 } == 1)
        #expect(clock.now().nanoseconds == 6_000_000_000 && clock.wall().milliseconds == 1_006_000)
        clock.obey(ClockTreatment())
        #expect(clock.now().nanoseconds == 6_000_000_000 && clock.wall().milliseconds == 1_001_000)
        base.advance(100)
        #expect(clock.now().nanoseconds == 6_100_000_000)
        // Back: the wall clock only, and also when it is healed.
        var back = ClockTreatment()
        back.offsetMilliseconds = -3_000
        clock.obey(back)
        #expect(clock.now().nanoseconds == 6_100_000_000 && clock.wall().milliseconds == 1_001_100 - 3_000)
        clock.obey(ClockTreatment())
        #expect(clock.now().nanoseconds == 6_100_000_000 && clock.wall().milliseconds == 1_001_100)
    }

    @Test func clockDriftsAndTimersFollow() {
        let base = ScriptedClock()
        let clock = FaultyClock(base)
        var drift = ClockTreatment()
        drift.driftPartsPerMillion = 250_000
        clock.obey(drift)
        base.advance(4_000)
        #expect(clock.now().nanoseconds == 6_000_000_000 && clock.wall().milliseconds == 1_006_000)
        #expect(clock.realTime(for: .seconds(5)) == .seconds(4))
        drift.driftPartsPerMillion = -500_000
        clock.obey(drift)
        base.advance(1_000)
        #expect(clock.now().nanoseconds == 6_500_000_000 && clock.wall().milliseconds == 1_006_500)
        #expect(clock.realTime(for: .seconds(1)) == .seconds(2))
        clock.obey(ClockTreatment())
        #expect(clock.now().nanoseconds == 6_500_000_000 && clock.wall().milliseconds == 1_006_000)
        #expect(clock.realTime(for: .seconds(1)) == .seconds(1))
    }
}
