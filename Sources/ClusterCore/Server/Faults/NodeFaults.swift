import Base
import Log
import Replica
import PosixDisk

/// One node's share of a plan, at the seams that its environment offers: disk, backend, clock and links. Outlives the node: one that starts
/// again finds what the latest plan left.
public final class NodeFaults: Sendable {
    private let member: MemberID
    private let disk: any Disk
    private let diskFaults = DiskFaults()
    private let clock: FaultyClock
    private let links = FaultyLinks()

    /// - Parameter disk, clock: what is behind the faults.
    public init(member: MemberID, disk: any Disk = PosixDisk(), clock: any NodeClock = SystemClock()) {
        self.member = member
        self.disk = disk
        self.clock = FaultyClock(clock)
    }

    /// From now on the node is treated like this. Any thread; takes effect before it returns, but for messages already on the way.
    public func obey(_ plan: FaultPlan) {
        diskFaults.obey(plan[disk: member.rawValue])
        clock.obey(plan[clock: member.rawValue])
        links.obey(plan)
    }

    /// Puts the faults between a new life of the node and the world.
    public func govern(_ environment: inout NodeEnvironment) {
        let disk = FaultyDisk(disk, diskFaults)
        environment.disk = disk
        environment.wrapBackend = { disk.wrap($0) }
        environment.interruptDisk = { disk.interrupt() }
        environment.clock = clock
        environment.links = links
    }

    /// Leaves the node's log as a power failure in the middle of a write does. The node must not run.
    @discardableResult
    public func tearLog(dataDirectory: String) throws(NodeError) -> TornWrite {
        do {
            let lock = try DirectoryLock(directory: dataDirectory)
            return try withExtendedLifetime(lock) {
                let directory = MemberFiles.logDirectory(in: dataDirectory)
                guard let identity = try WriteAheadLog.identity(directory: directory, disk: disk) else { throw LogError.missing(directory: directory) }
                return try WriteAheadLog.tear(directory: directory, disk: disk, identity: identity)
            }
        } catch {
            throw .dataDirectory("\(error)")
        }
    }
}
